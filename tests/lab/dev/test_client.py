"""The client's retry rule, against a real HTTP server: as a load balancer's, and honest."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from lab.dev.client import Answer, Counts, ScorerConnection, ScoringClient, percentile_ms, swaps_seen
from lab.embedded import free_port
from stream.events import ContextValue, EntityId

_USERS: dict[EntityId, dict[str, ContextValue]] = {"anna": {}, "bob": {"hour": 3}}
_QUESTION = {"user_id": "anna", "item_ids": [1, 2], "context": {"hour": 3}}


class _Scorer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    status = 200
    version = "v000001"

    def do_GET(self) -> None:
        self._reply(200, {})

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        body = {"model_version": self.version, "degraded": False, "items": len(asked["item_ids"])}
        self._reply(self.status, body)

    def _reply(self, status: int, body: dict[str, object]) -> None:
        page = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def _serving(port: int, *, status: int = 200, version: str = "v000001") -> Iterator[None]:
    handler = type("Scorer", (_Scorer,), {"status": status, "version": version})
    with ThreadingHTTPServer(("127.0.0.1", port), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield
        server.shutdown()
        thread.join()


@pytest.fixture
def connection(port: int) -> Iterator[ScorerConnection]:
    connection = ScorerConnection(port, retry_seconds=3.0)
    yield connection
    connection.close()


@pytest.fixture
def port() -> int:
    return free_port()


def test_a_lost_connection_is_tried_again_within_the_budget(port: int, connection: ScorerConnection) -> None:
    answers: list[Answer] = []
    thread = threading.Thread(target=lambda: answers.append(connection.score(_QUESTION, time.monotonic())))
    with socket.create_server(("127.0.0.1", port)) as killed:
        thread.start()
        killed.accept()[0].close()
    with _serving(port):
        thread.join()
        connection.close()
    assert [(a.version, a.retries, a.fault) for a in answers] == [("v000001", 1, None)]


def test_a_request_fails_when_the_budget_is_used_up(port: int) -> None:
    answer = ScorerConnection(port, retry_seconds=0.2).score(_QUESTION, time.monotonic())
    assert answer.version is None
    assert answer.fault == "connection refused until the retry budget ended"
    assert answer.latency_ms >= 200


def test_an_answer_carries_version_and_latency_and_any_reply_but_200_fails_at_once_with_its_text(
    port: int, connection: ScorerConnection
) -> None:
    with _serving(port, version="v000007"):
        answer = connection.score(_QUESTION, time.monotonic())
        connection.close()
    assert (answer.version, answer.retries, answer.fault) == ("v000007", 0, None)
    assert 0 < answer.latency_ms < 1000
    with _serving(port, status=503):
        answer = connection.score(_QUESTION, time.monotonic())
        connection.close()
    assert answer.retries == 0
    assert answer.fault is not None
    assert answer.fault.startswith("HTTP 503: ")


def test_the_client_waits_for_readiness_and_then_keeps_asking(port: int) -> None:
    started_at = time.monotonic()
    with ScoringClient(port, _USERS, [1, 2, 3], per_second=200, items_each=20, started_at=started_at) as client:
        time.sleep(0.1)  # nothing listens yet: no request is counted
        assert not client.answers
        with _serving(port):
            deadline = time.monotonic() + 5
            while len(client.answers) < 10 and time.monotonic() < deadline:
                time.sleep(0.01)
            client.stop()
    assert len(client.answers) >= 10
    assert all(a.fault is None for a in client.answers)


def _answer(at: float, version: str | None, latency_ms: float = 1.0) -> Answer:
    fault = None if version else "HTTP 500"
    return Answer(at, latency_ms, version, degraded=False, retries=0, fault=fault)


def test_a_swap_is_the_first_answer_of_another_version_and_is_counted_with_all_requests() -> None:
    answers, counts = (
        [_answer(0, "v1"), _answer(1, "v1"), _answer(2, None), _answer(3, "v2"), _answer(4, "v3")],
        Counts(),
    )
    assert swaps_seen(answers) == [(3, "v2"), (4, "v3")]
    for answer in answers:
        counts = counts.after(answer)
    assert counts == Counts(requests=5, failed=1, swaps=2, version="v3")


def test_percentiles_are_of_the_answered_requests() -> None:
    answers = [_answer(i, "v1", latency_ms=float(i)) for i in range(100)] + [_answer(0, None, latency_ms=9999.0)]
    assert percentile_ms(answers, 0.5) == 50.0
    assert percentile_ms(answers, 0.99) == 99.0
    assert percentile_ms([], 0.5) is None
