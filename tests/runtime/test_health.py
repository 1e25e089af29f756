import contextlib
import http.client
import json
import socket
import time
from collections.abc import Iterator

import pytest
from prometheus_client import Counter

from lab.embedded import free_port
from runtime import health
from runtime.health import STANDSTILL_SECONDS, Health, HealthServer


class _Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


def test_a_process_without_a_loop_is_starting() -> None:
    assert Health().reasons() == ["the process is starting"]


def test_a_process_that_waits_before_its_first_loop_says_what_for() -> None:
    health, holder = Health(), _Clock()
    health.hold(holder, "Kafka is away")
    assert health.reasons() == ["Kafka is away", "the process is starting"]


def test_a_loop_is_ready_after_its_first_round() -> None:
    health = Health()
    health.begin("join")
    assert health.reasons() == ["the join loop is starting"]
    health.round_ended("join")
    assert health.reasons() == []


def test_a_loop_that_ends_no_round_within_the_bound_is_named_with_its_seconds() -> None:
    clock = _Clock()
    health = Health(clock)
    for loop in ("join", "other"):
        health.begin(loop)
        health.round_ended(loop)
    clock.now += STANDSTILL_SECONDS
    assert health.reasons() == []
    health.round_ended("other")
    clock.now += 1
    assert health.reasons() == ["the join loop stands still since 61 s"]
    health.round_ended("join")
    assert health.reasons() == []


def test_each_holder_has_a_reason_of_its_own_until_it_releases_it() -> None:
    health, one, other = Health(), _Clock(), _Clock()
    health.begin("join")
    health.round_ended("join")
    health.hold(one, "Kafka is away")
    health.hold(one, "Kafka is still away")
    health.hold(other, "Redis is away")
    assert health.reasons() == ["Kafka is still away", "Redis is away"]
    health.release(one)
    health.release(one)
    assert health.reasons() == ["Redis is away"]


def test_a_holder_that_is_gone_holds_nothing() -> None:
    health = Health()
    health.begin("join")
    health.round_ended("join")
    health.hold(_Clock(), "nobody waits any more")
    assert health.reasons() == []


_COUNTER = Counter("graft_health_server_test", "A test's.")


class _Served:
    def __init__(self) -> None:
        self.health = Health()
        self.port = free_port()
        self.server = HealthServer(self.port, health=self.health)

    def ask(self, path: str, method: str = "GET") -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        connection.request(method, path)
        reply = connection.getresponse()
        found = reply.status, reply.read()
        connection.close()
        return found

    def json(self, path: str, method: str = "GET") -> tuple[int, dict[str, str]]:
        status, body = self.ask(path, method)
        return status, json.loads(body)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=10)


@pytest.fixture
def served() -> Iterator[_Served]:
    made = _Served()
    yield made
    made.server.close()


def test_ready_is_told_with_its_reasons_and_alive_always(served: _Served) -> None:
    assert served.json("/readyz") == (503, {"status": "not ready", "reason": "the process is starting"})
    served.health.begin("join")
    served.health.round_ended("join")
    assert served.json("/readyz") == (200, {"status": "ready"})
    served.health.hold(served, 'Kafka "a" is away')
    served.health.hold(served.health, "Redis too")
    assert served.json("/readyz") == (503, {"status": "not ready", "reason": 'Kafka "a" is away; Redis too'})
    assert served.json("/healthz") == (200, {"status": "alive"})


def test_metrics_are_text_also_with_a_query(served: _Served) -> None:
    _COUNTER.inc(3)
    status, body = served.ask("/metrics?name[]=a")
    assert status == 200
    assert b"graft_health_server_test_total 3.0" in body


def test_other_paths_and_methods_are_refused_with_what_is_allowed(served: _Served) -> None:
    assert served.json("/") == (404, {"error": "allowed is GET /healthz, GET /readyz, GET /metrics"})
    assert served.json("/metrics", "POST") == (405, {"error": "allowed is GET"})


def test_what_is_no_request_is_refused_and_what_is_too_long_is_dropped(served: _Served) -> None:
    with served.connect() as odd:
        odd.sendall(b"\xff\x00\r\n\r\n")
        assert odd.recv(100).startswith(b"HTTP/1.1 400")
    with served.connect() as long:
        long.sendall(b"GET /" + b"x" * 20_000)
        with contextlib.suppress(ConnectionResetError):
            assert long.recv(100) == b""
    assert served.ask("/healthz")[0] == 200


def test_clients_that_send_nothing_keep_nobody_waiting_and_are_dropped(
    served: _Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "_DEADLINE_SECONDS", 1.0)
    silent = [served.connect() for _ in range(100)]
    silent[-1].sendall(b"GET /metrics HTTP/1.1\r\n")
    started = time.monotonic()
    assert served.ask("/healthz")[0] == 200
    assert time.monotonic() - started < 0.9
    assert len(served.server._connections) <= 32
    for each in silent:  # dropped: at once where there were too many, else at the deadline
        with contextlib.suppress(ConnectionResetError):
            assert each.recv(1) == b""
        each.close()


def test_a_port_that_is_taken_is_an_error_of_the_caller(served: _Served) -> None:
    with pytest.raises(OSError, match="in use"):
        HealthServer(served.port)
