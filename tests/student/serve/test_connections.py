"""What a hostile client may cost: connections, heads, bodies, trailers, time to send and to read."""

import asyncio
import inspect
import json
import logging
import resource
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

import httpx
import psutil
import pytest
import uvicorn
from prometheus_client import REGISTRY
from starlette.applications import Starlette
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from lab.embedded import free_port
from runtime.errors import GraftError
from runtime.telemetry import StopSignal
from student.serve.admission import Tokens
from student.serve.server import Limits, check_open_files, run_server
from student.serve.swap import ChampionSwap, Serving
from student.versions.registry import Registry
from tests.student.serve.test_server import BODY, at, until

LARGE = json.dumps({**BODY, "item_ids": [10] * 1_000, "explain": True}).encode()
"""Its reply has some 150 kB."""
SLOW = json.dumps({**BODY, "version": "champion"}).encode()


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


class NamedRequests:
    """Requests that name a version wait here, once the scorer has begun them."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.begun, self.go_on, self.ended = threading.Semaphore(0), threading.Event(), threading.Semaphore(0)
        named = ChampionSwap.named

        async def slow(swap: ChampionSwap, text: str) -> Serving:
            self.begun.release()
            await asyncio.to_thread(self.go_on.wait, 10)
            self.ended.release()
            return await named(swap, text)

        patch.setattr(ChampionSwap, "named", slow)


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


def post_of(path: str, head: str = "", body: bytes = b'{"user_id": 1, "item_ids": [10]}', http: str = "1.1") -> bytes:
    return f"POST {path} HTTP/{http}\r\nhost: a\r\ncontent-length: {len(body)}\r\n{head}\r\n".encode() + body


def closed(limit: str) -> float:
    """How many connections this process has closed by a limit."""
    return REGISTRY.get_sample_value("graft_scorer_closed_connections_total", {"limit": limit}) or 0.0


def test_idle_connections_above_the_limit_give_way_to_requests(published: Registry, redis_url: str) -> None:
    with scorer(published, redis_url, Limits(connections=20)) as client, ExitStack() as stack:
        for _ in range(200):
            stack.enter_context(connected(client))
        for _ in range(3):
            assert httpx.post(client.base_url.join("/score"), json=BODY, timeout=5).status_code == 200
        assert open_at(client) <= 21


def test_a_new_connection_is_refused_where_none_is_idle(published: Registry, redis_url: str) -> None:
    with pytest.MonkeyPatch.context() as patch, scorer(published, redis_url, Limits(connections=2)) as client:
        waiting = NamedRequests(patch)
        client.close()
        with connected(client) as first, connected(client) as second:
            for busy in (first, second):
                busy.sendall(post_of("/score", "connection: close\r\n", SLOW))
                assert waiting.begun.acquire(timeout=5)
            with connected(client) as third:
                assert b"fewer connections at a time" in until_closed(third)
            waiting.go_on.set()
            assert all(until_closed(busy).startswith(b"HTTP/1.1 200 ") for busy in (first, second))


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"\r\n",
        b"POST /score HTTP/1.1\r\nhost: a\r\n",
        post_of("/score")[:-1],
        b"POST /score HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n1\r\n{\r\n",
        b"POST /score HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n1\r\n{\r\n0\r\nx: a\r\n",
    ],
    ids=["nothing", "an empty line", "a head", "a body", "a body in chunks", "trailers"],
)
def test_a_request_that_does_not_end_is_closed_and_others_are_answered(
    published: Registry, redis_url: str, sent: bytes
) -> None:
    with scorer(published, redis_url, Limits(client_seconds=0.5, requests=1)) as client, connected(client) as slow:
        slow.sendall(sent)
        assert client.post("/score", json=BODY).status_code == 200
        answer = until_closed(slow)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b'"allowed":"a request sent in 0.5 s"' in answer


def test_an_empty_line_after_a_request_does_not_keep_a_connection(published: Registry, redis_url: str) -> None:
    with scorer(published, redis_url, Limits(client_seconds=0.5)) as client, connected(client) as idle:
        idle.sendall(b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n")
        assert idle.recv(65_536).startswith(b"HTTP/1.1 200 ")
        idle.sendall(b"\r\n")
        assert b"HTTP/1.1 408 " in until_closed(idle)


CHUNKED = b"POST /score HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n1\r\n{\r\n"


@pytest.mark.parametrize(
    "sent",
    [
        b"POST /score HTTP/1.1\r\nhost: a\r\nx: " + b"a" * 20_000_000,
        b"POST /score HTTP/1.1\r\nhost: a\r\n" + b"x: a\r\n" * 1_000_000,
        b"GET /" + b"a" * 20_000_000,
        CHUNKED + b"0\r\nx: " + b"a" * 20_000_000,
        CHUNKED + b"0\r\n" + b"x: a\r\n" * 1_000_000,
        CHUNKED + b"1;" + b"a" * 20_000_000,
    ],
    ids=["a long header", "many headers", "a long path", "a long trailer", "many trailers", "a chunk's extension"],
)
def test_megabytes_that_are_no_body_are_refused_before_they_take_memory(
    published: Registry, redis_url: str, sent: bytes
) -> None:
    with scorer(published, redis_url) as client, connected(client) as hostile:
        before, most = psutil.Process().memory_info().rss, []
        try:
            for first in range(0, len(sent), 65_536):
                hostile.sendall(sent[first : first + 65_536])
                most.append(psutil.Process().memory_info().rss)
        except (BrokenPipeError, ConnectionResetError):
            pass
        assert b" 431 " in until_closed(hostile)[:20] or len(most) < len(sent) // 65_536
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
    published: Registry, redis_url: str, caplog: pytest.LogCaptureFixture, sent: bytes, status: int
) -> None:
    with scorer(published, redis_url) as client:
        before, lines = closed("malformed"), len(caplog.records)
        for _ in range(5):
            with connected(client) as hostile:
                hostile.sendall(sent)
                assert hostile.recv(1_000).startswith(b"HTTP/1.1 %d " % status)
        assert closed("malformed") - before == (5 if status == 400 else 0)
        assert [record.getMessage() for record in caplog.records[lines:] if record.name != "httpx"] == []
        assert client.post("/score", json=BODY).status_code == 200


def test_a_request_in_small_pieces_is_read(published: Registry, redis_url: str) -> None:
    request = post_of("/score", f"x: {'a' * 500}\r\n")
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in b'{"user_id": 1, "item_ids": [10]' + b" " * 5_000 + b"}")
    chunked = b"POST /score HTTP/1.1\r\nhost: a\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n"
    with scorer(published, redis_url) as client, connected(client) as slow:
        for byte in request:
            slow.sendall(bytes([byte]))
        slow.sendall(chunked + chunks + b"0\r\nx: a trailer\r\n\r\n")
        assert until_closed(slow).count(b"HTTP/1.1 200 ") == 2


@pytest.mark.parametrize(("length", "status"), [("0" * 5_000, 400), ("9" * 5_000, 400), ("0" * 50 + "9" * 8, 413)])
def test_a_content_length_of_any_length_is_no_fault_of_ours(
    published: Registry, redis_url: str, length: str, status: int
) -> None:
    with scorer(published, redis_url) as client, connected(client) as odd:
        head = f"POST /score HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
        odd.sendall(head.encode())
        assert until_closed(odd).startswith(f"HTTP/1.1 {status} ".encode())


@contextmanager
def unread(client: httpx.Client, requests: int) -> Iterator[socket.socket]:
    """A connection with so many large replies of which nothing is read."""
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        one.settimeout(5)
        one.connect(("127.0.0.1", client.base_url.port))
        one.sendall(post_of("/score", body=LARGE) * requests)
        yield one


@pytest.fixture
def _small_buffers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system takes some kB of each connection's replies; it takes megabytes otherwise."""
    create = socket.create_server

    def small(*arguments: Any, **settings: Any) -> socket.socket:
        made = create(*arguments, **settings)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_096)  # the connections' own is the listener's
        return made

    monkeypatch.setattr(socket, "create_server", small)


@pytest.mark.usefixtures("_small_buffers")
def test_a_client_that_does_not_read_is_closed_and_others_are_answered(published: Registry, redis_url: str) -> None:
    before = closed("reply")
    with scorer(published, redis_url, Limits(connections=4, client_seconds=1.0)) as client, ExitStack() as stack:
        waiting = [stack.enter_context(unread(client, 3)) for _ in range(4)]
        until(lambda: closed("reply") - before == 4, "the connections to be closed", 30)
        with httpx.Client(base_url=client.base_url, timeout=10) as other:
            assert other.post("/score", json=BODY).status_code == 200
        for one in waiting:
            until_closed(one)


@pytest.mark.usefixtures("_small_buffers")
def test_a_connection_with_an_unread_reply_that_gives_way_is_gone(published: Registry, redis_url: str) -> None:
    with scorer(published, redis_url, Limits(connections=1, client_seconds=60.0)) as client, unread(client, 1):
        until(lambda: open_at(client) == 1, "the connection alone")
        before = closed("connections")
        with httpx.Client(base_url=client.base_url, timeout=10) as other:
            until(lambda: other.post("/score", json=BODY).status_code == 200, "it to give way")
            until(lambda: open_at(client) == 1, "it to be gone", 30)
        assert closed("connections") > before


def open_at(client: httpx.Client) -> int:
    """The connections that the scorer has open; it is of this process."""
    everyone = psutil.Process().net_connections("tcp4")
    return sum(one.laddr.port == client.base_url.port and bool(one.raddr) for one in everyone)


@pytest.mark.parametrize(
    "more",
    [
        b"",
        post_of("/score", body=SLOW),
        b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n",
        b"no HTTP\r\n\r\n",
        b"x" * 20_000,
        post_of("/score", body=SLOW)[:-5],
    ],
    ids=["nothing", "a request", "another request", "nonsense", "a long head", "a part of a request"],
)
def test_a_client_that_goes_away_is_no_error_of_ours_and_takes_no_place(
    published: Registry, redis_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, more: bytes
) -> None:
    waiting = NamedRequests(monkeypatch)
    with caplog.at_level(logging.ERROR), scorer(published, redis_url, Limits(requests=1, client_seconds=0.2)) as client:
        before = client.get("/metrics").text.count('graft_scorer_requests_total{status="500"}')
        with connected(client) as one:
            one.sendall(post_of("/score", body=SLOW) + more)
            assert waiting.begun.acquire(timeout=5)
        until(lambda: client.get("/healthz").status_code == 200, "an answer to others")
        waiting.go_on.set()
        assert waiting.ended.acquire(timeout=5)
        until(lambda: client.post("/score", json=BODY).status_code == 200, "a place for others")
        assert client.get("/metrics").text.count('graft_scorer_requests_total{status="500"}') == before
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []


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


def test_uvicorn_has_the_names_that_it_does_not_promise() -> None:
    """A new uvicorn that fails here: look at student/serve/server.py before the pin moves."""
    signatures = {
        HttpToolsProtocol.__init__: ["self", "config", "server_state", "app_state", "_loop"],
        HttpToolsProtocol._start_asgi_task: ["self", "cycle", "app"],
        HttpToolsProtocol.on_body: ["self", "body"],
        HttpToolsProtocol.send_400_response: ["self", "msg"],
        uvicorn.Server.on_tick: ["self", "counter"],
        uvicorn.Server.capture_signals: ["self"],
    }
    assert {of: [*inspect.signature(of).parameters] for of in signatures} == signatures
    for name in ("on_message_begin", "on_headers_complete", "on_message_complete"):
        assert [*inspect.signature(getattr(HttpToolsProtocol, name)).parameters] == ["self"]
    config = uvicorn.Config(Starlette(), http=HttpToolsProtocol, ws="none", log_config=None)
    state = uvicorn.server.ServerState()

    async def made() -> HttpToolsProtocol:
        return HttpToolsProtocol(config, state, {}, asyncio.get_running_loop())

    protocol = asyncio.run(made())
    assert (protocol.connections, protocol.transport, protocol.cycle) == (state.connections, None, None)
    of_cycle = RequestResponseCycle.__init__.__code__.co_names
    assert {"disconnected", "message_event", "response_complete"} <= {*of_cycle}
