"""What a hostile client may cost: connections, heads, bodies, time; and who may ask at all."""

import asyncio
import json
import re
import resource
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from prometheus_client import REGISTRY

from lab.embedded import free_port
from runtime.errors import ConfigurationError, GraftError
from runtime.telemetry import StopSignal
from student.serve import tokens as tokens_module
from student.serve.connections import Limits, check_open_files
from student.serve.server import run_server
from student.serve.swap import ChampionSwap, Serving
from student.serve.tokens import Tokens
from student.versions.registry import Registry
from tests.student.serve.test_server import BODY, at, publish, until

FIRST, SECOND = "first-token-of-this-test", "second-token-of-this-test"


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    made = Registry(tmp_path / "versions")
    publish(made)
    return made


@contextmanager
def scorer(
    registry: Registry, redis_url: str, limits: Limits | None = None, tokens: Tokens | None = None
) -> Iterator[httpx.Client]:
    """A scorer that is ready, with a client of its own connections."""
    stop, port = StopSignal(), free_port()
    swap = ChampionSwap(registry, redis_url)
    client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10)
    with ThreadPoolExecutor(1) as pool, client, at(port) as listeners:
        run = pool.submit(run_server, swap, listeners, stop, limits or Limits(), tokens)
        try:
            until(lambda: run.done() or _is_ready(client), "a scorer that is ready")
            yield client
        finally:
            stop.set()
        run.result(timeout=20)


def _is_ready(client: httpx.Client) -> bool:
    try:
        return client.get("/readyz").status_code == 200
    except httpx.TransportError:
        return False


def connected(client: httpx.Client) -> socket.socket:
    return socket.create_connection(("127.0.0.1", client.base_url.port or 0), 5)


def until_closed(connection: socket.socket, seconds: float = 8.0) -> bytes:
    """What the scorer says until it closes the connection."""
    connection.settimeout(seconds)
    said = b""
    try:
        while part := connection.recv(65_536):
            said += part
    except ConnectionResetError:
        pass
    return said


def malformed() -> float:
    """How many requests were no HTTP, in this process."""
    return REGISTRY.get_sample_value("graft_scorer_closed_connections_total", {"limit": "malformed"}) or 0.0


def test_idle_connections_above_the_limit_give_way_to_requests(registry: Registry, redis_url: str) -> None:
    with scorer(registry, redis_url, Limits(connections=20)) as client, ExitStack() as stack:
        for _ in range(200):
            stack.enter_context(connected(client))
        for _ in range(3):
            assert httpx.post(client.base_url.join("/score"), json=BODY, timeout=5).status_code == 200


def test_a_connection_that_sends_nothing_is_closed(registry: Registry, redis_url: str) -> None:
    with scorer(registry, redis_url, Limits(send_seconds=0.3)) as client, connected(client) as silent:
        assert until_closed(silent).startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize(
    "sent", [b"POST /score HTTP/1.1\r\nhost: a\r\n", b"POST /score HTTP/1.1\r\nhost: a\r\ncontent-length: 50\r\n\r\n{"]
)
def test_a_request_that_does_not_end_is_closed_and_others_are_answered(
    registry: Registry, redis_url: str, sent: bytes
) -> None:
    with scorer(registry, redis_url, Limits(send_seconds=0.5, requests=1)) as client, connected(client) as slow:
        slow.sendall(sent)
        assert client.post("/score", json=BODY).status_code == 200
        answer = until_closed(slow)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b'"allowed":"a request sent in 0.5 s"' in answer


@pytest.mark.parametrize(
    "head",
    [
        b"POST /score HTTP/1.1\r\nhost: a\r\nx: " + b"a" * 20_000_000,
        b"POST /score HTTP/1.1\r\nhost: a\r\n" + b"x: a\r\n" * 1_000_000,
        b"GET /" + b"a" * 20_000_000,
    ],
    ids=["a long header", "many headers", "a long path"],
)
def test_a_head_of_megabytes_is_refused_before_it_takes_memory(registry: Registry, redis_url: str, head: bytes) -> None:
    with scorer(registry, redis_url) as client, connected(client) as hostile:
        before, most = psutil.Process().memory_info().rss, []
        try:
            for first in range(0, len(head), 65_536):
                hostile.sendall(head[first : first + 65_536])
                most.append(psutil.Process().memory_info().rss)
        except (BrokenPipeError, ConnectionResetError):
            pass
        assert b" 431 " in until_closed(hostile)[:20] or len(most) < len(head) // 65_536
        assert max(most) - before < 10_000_000
        assert client.post("/score", json=BODY).status_code == 200
        assert 'closed_connections_total{limit="headers"}' in client.get("/metrics").text


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"GET / HTTP/9.9\r\n\r\n", 400),
        (b"POST /score HTTP/1.1\r\nhost: a\r\ncontent-length: -1\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n", 200),
        (b"GET /healthz HTTP/1.1\r\nhost: a\r\nconnection: upgrade, http2-settings\r\nupgrade: h2c\r\n\r\n", 200),
    ],
    ids=["TLS", "a version", "a length", "a web socket", "HTTP/2"],
)
def test_who_sends_no_http_is_counted_and_does_not_fill_the_log(
    registry: Registry, redis_url: str, caplog: pytest.LogCaptureFixture, sent: bytes, status: int
) -> None:
    with scorer(registry, redis_url) as client:
        before, lines = malformed(), len(caplog.records)
        for _ in range(5):
            with connected(client) as hostile:
                hostile.sendall(sent)
                assert hostile.recv(1_000).startswith(b"HTTP/1.1 %d " % status)
        assert malformed() - before == (5 if status == 400 else 0)
        assert [record.getMessage() for record in caplog.records[lines:] if record.name != "httpx"] == []
        assert client.post("/score", json=BODY).status_code == 200


def test_a_head_of_ordinary_size_in_small_pieces_is_read(registry: Registry, redis_url: str) -> None:
    body = b'{"user_id": 1, "item_ids": [10]}'
    request = b"POST /score HTTP/1.1\r\nhost: a\r\nx: %s\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%s"
    with scorer(registry, redis_url) as client, connected(client) as slow:
        for byte in request % (b"a" * 500, len(body), body):
            slow.sendall(bytes([byte]))
        assert until_closed(slow).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(("length", "status"), [("0" * 5_000, 400), ("9" * 5_000, 400), ("0" * 50 + "9" * 8, 413)])
def test_a_content_length_of_any_length_is_no_fault_of_ours(
    registry: Registry, redis_url: str, length: str, status: int
) -> None:
    with scorer(registry, redis_url) as client, connected(client) as odd:
        odd.sendall(
            f"POST /score HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n".encode()
        )
        assert until_closed(odd).startswith(f"HTTP/1.1 {status} ".encode())


def test_a_body_of_unknown_fields_is_refused_in_one_sentence(registry: Registry, redis_url: str) -> None:
    body: dict[str, Any] = {**BODY, **{f"f{i}": i for i in range(60_000)}}
    with scorer(registry, redis_url) as client:
        answer = client.post("/score", json=body)
    assert answer.status_code == 422
    assert answer.json()["error"]["message"].startswith("the body has 60000 faults; allowed is an object with user_id")


@contextmanager
def full_scorer(registry: Registry, redis_url: str, tokens: Tokens | None = None) -> Iterator[httpx.Client]:
    """A scorer that takes two requests at a time, and has two until the block ends: those get their scores then.

    Requests that name a version wait for it here.
    """
    begun, go_on = threading.Semaphore(0), threading.Event()
    as_it_is = ChampionSwap.named

    async def slow(self: ChampionSwap, text: str) -> Serving:
        begun.release()
        await asyncio.to_thread(go_on.wait, 10)
        return await as_it_is(self, text)

    with (
        pytest.MonkeyPatch.context() as patch,
        scorer(registry, redis_url, Limits(requests=2), tokens) as client,
        ThreadPoolExecutor(2) as pool,
    ):
        patch.setattr(ChampionSwap, "named", slow)
        under_way = [pool.submit(client.post, "/score", json={**BODY, "version": "champion"}) for _ in range(2)]
        assert all(begun.acquire(timeout=5) for _ in under_way)
        try:
            yield client
        finally:
            go_on.set()
        assert [request.result(10).status_code for request in under_way] == [200, 200]
        assert client.post("/score", json=BODY).status_code == 200


def post_of(path: str, head: str = "", body: bytes = b'{"user_id": 1, "item_ids": [10]}', http: str = "1.1") -> bytes:
    return f"POST {path} HTTP/{http}\r\nhost: a\r\ncontent-length: {len(body)}\r\n{head}\r\n".encode() + body


def reply_of(connection: socket.socket) -> tuple[int, dict[str, str], Any]:
    """One reply, of which nothing else may follow."""
    said = b""
    while b"\r\n\r\n" not in said:
        said += connection.recv(65_536)
    head, _, body = said.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    while len(body) < int(headers["content-length"]):
        body += connection.recv(65_536)
    assert len(body) == int(headers["content-length"])
    return int(status.split()[1]), headers, json.loads(body)


def test_more_requests_than_the_limit_get_a_503_at_once_and_the_others_their_scores(
    registry: Registry, redis_url: str
) -> None:
    with full_scorer(registry, redis_url) as client:
        start = time.monotonic()
        refused = client.post("/score", json=BODY)
        assert time.monotonic() - start < 5
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert refused.json()["error"]["message"].startswith("2 requests are under way")
        assert client.get("/readyz").status_code == 200
        assert 'graft_scorer_requests_total{status="503"}' in client.get("/metrics").text


def test_a_connection_goes_on_after_a_request_that_was_not_let_in(registry: Registry, redis_url: str) -> None:
    with full_scorer(registry, redis_url) as client, connected(client) as one:
        request = post_of("/score", "x-request-id: a-1\r\n")
        one.sendall(request[:-10])
        time.sleep(0.05)  # so that the body comes in parts
        one.sendall(request[-10:])
        status, headers, reply = reply_of(one)
        assert (status, headers["retry-after"], headers["x-request-id"]) == (503, "1", "a-1")
        assert "connection" not in headers
        one.sendall(
            post_of("/v2/models/student/infer", "transfer-encoding: chunked\r\n", b"")[:-2].replace(
                b"content-length: 0\r\n", b""
            )
            + b"\r\n4\r\nabcd\r\n0\r\n\r\n"
        )
        status, _, reply = reply_of(one)
        assert (status, reply) == (503, {"error": "2 requests are under way, and no more are taken at a time"})
        one.sendall(b"GET /readyz HTTP/1.1\r\nhost: a\r\n\r\n")
        assert reply_of(one)[0] == 200
        one.sendall(post_of("/score", "expect: 100-continue\r\nconnection: close\r\n"))
        assert b"\r\n\r\nHTTP/1.1 503 " in until_closed(one)  # after 100 Continue


def test_requests_sent_in_one_piece_are_answered_in_their_order(registry: Registry, redis_url: str) -> None:
    with full_scorer(registry, redis_url) as client, connected(client) as one:
        closing = post_of("/score", "connection: close\r\n")
        one.sendall(post_of("/score") + b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n" + post_of("/score") + closing)
        said = until_closed(one)
        assert re.findall(rb"HTTP/1.1 (\d+) ", said) == [b"503", b"200", b"503", b"503"]


def test_an_old_client_that_is_not_let_in_is_closed(registry: Registry, redis_url: str) -> None:
    with full_scorer(registry, redis_url) as client, connected(client) as one:
        one.sendall(post_of("/score", http="1.0"))
        assert until_closed(one).startswith(b"HTTP/1.1 503 ")


def test_who_has_no_token_is_refused_and_a_changed_file_counts_within_a_second(
    registry: Registry, redis_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def status(token: str | None) -> int:
        headers = {} if token is None else {"authorization": token}
        return client.post("/score", json=BODY, headers=headers).status_code

    path = tmp_path / "tokens"
    path.write_text(f"# of the shop\n{FIRST}\n\n{SECOND}\n")
    with scorer(registry, redis_url, tokens=Tokens(path)) as client:
        wrong = [None, "", "Bearer", f"Basic {FIRST}", f"Bearer {FIRST}x", f"Bearer {FIRST[:-1]}", FIRST]
        assert [status(token) for token in wrong] == [401] * 7
        assert [status(f"Bearer {token}") for token in (FIRST, SECOND)] == [200, 200]
        refused = client.post("/score", json=BODY)
        assert refused.headers["www-authenticate"] == "Bearer"
        assert client.get("/readyz").status_code == 200
        path.write_text(f"{SECOND}\n")
        until(lambda: status(f"Bearer {FIRST}") == 401, "the first token to be gone", 5)
        assert status(f"Bearer {SECOND}") == 200
        path.write_text("short\n")
        until(lambda: status(f"Bearer {SECOND}") == 200 and "stay as they were" in caplog.text, "the log", 5)
    assert FIRST not in refused.text + caplog.text


@pytest.mark.parametrize("content", [None, "", "# none\n", "short\n", "\xe4" * 7])
def test_a_file_without_good_tokens_is_refused_at_the_start(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "tokens").write_text(content)
    with pytest.raises(ConfigurationError, match="GRAFT_HTTP_TOKENS_FILE"):
        Tokens(tmp_path / "tokens")


def test_open_files_are_enough_for_the_connections_or_the_scorer_does_not_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    set_to: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _of: (256, 2_000))
    monkeypatch.setattr(resource, "setrlimit", lambda _of, limits: set_to.append(limits))
    check_open_files(100)
    assert set_to == []
    check_open_files(1_000)
    assert set_to == [(1_128, 2_000)]
    with pytest.raises(GraftError, match="5000 connections need 5128 open files, and this process may have 2000"):
        check_open_files(5_000)


TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        ({"x-request-id": "a-1"}, "a-1"),
        ({}, None),
        ({"x-request-id": "a b"}, None),
        ({"x-request-id": "x" * 129}, None),
        ({"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}, TRACE),
        ({"traceparent": f"01-{TRACE}-00f067aa0ba902b7-01-more", "x-request-id": "a-1"}, "a-1"),
        ({"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01", "x-request-id": "a b"}, TRACE),
        ({"traceparent": f"ff-{TRACE}-00f067aa0ba902b7-01"}, None),
        ({"traceparent": f"00-{'0' * 32}-00f067aa0ba902b7-01"}, None),
        ({"traceparent": f"00-{TRACE.upper()}-00f067aa0ba902b7-01"}, None),
        ({"traceparent": TRACE}, None),
    ],
)
def test_the_id_of_a_request_or_of_its_trace_comes_back(
    registry: Registry, redis_url: str, headers: dict[str, str], found: str | None
) -> None:
    with scorer(registry, redis_url) as client:
        for path, status in (("/score", 200), ("/v2/models/student/infer", 400)):
            answer = client.post(path, json=BODY, headers=headers)
            assert (answer.status_code, answer.headers.get("x-request-id")) == (status, found)


def test_a_file_that_changes_while_it_is_first_read_is_read_again(tmp_path: Path, monkeypatch: Any) -> None:
    path, read = tmp_path / "tokens", tokens_module._read
    path.write_text(FIRST)

    def read_then_changed(file: Path) -> list[bytes]:
        found = read(file)
        (tmp_path / "new").write_text(SECOND)
        (tmp_path / "new").rename(path)
        monkeypatch.setattr(tokens_module, "_read", read)
        return found

    monkeypatch.setattr(tokens_module, "_read", read_then_changed)
    monkeypatch.setattr(tokens_module, "_LOOK_SECONDS", 0.0)
    tokens = Tokens(path)
    assert tokens.allow(f"Bearer {SECOND}")
    assert not tokens.allow(f"Bearer {FIRST}")
