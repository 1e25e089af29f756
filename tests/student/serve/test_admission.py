"""Who may ask, and how many at a time; and the id by which a request is found again."""

import json
import os
import re
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from runtime.errors import ConfigurationError
from student.serve import admission
from student.serve.admission import Tokens
from student.serve.server import Limits
from student.versions.registry import Registry
from tests.student.serve.test_connections import (
    NamedRequests,
    connected,
    post_of,
    scorer,
    until_closed,
)
from tests.student.serve.test_server import BODY, until

FIRST, SECOND = "first-token-of-this-test", "second-token-of-this-test"


@contextmanager
def full_scorer(published: Registry, redis_url: str) -> Iterator[httpx.Client]:
    """A scorer that takes two requests at a time, and has two until the block ends: those get their scores then."""
    with (
        pytest.MonkeyPatch.context() as patch,
        scorer(published, redis_url, Limits(requests=2)) as client,
        ThreadPoolExecutor(2) as pool,
    ):
        waiting = NamedRequests(patch)
        under_way = [pool.submit(client.post, "/score", json={**BODY, "version": "champion"}) for _ in range(2)]
        assert all(waiting.begun.acquire(timeout=5) for _ in under_way)
        try:
            yield client
        finally:
            waiting.go_on.set()
        assert [request.result(10).status_code for request in under_way] == [200, 200]
        assert client.post("/score", json=BODY).status_code == 200


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
    published: Registry, redis_url: str
) -> None:
    with full_scorer(published, redis_url) as client:
        start = time.monotonic()
        refused = client.post("/score", json=BODY)
        assert time.monotonic() - start < 5
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert refused.json()["error"]["message"].startswith("2 requests are under way")
        assert client.get("/readyz").status_code == 200
        assert 'graft_scorer_requests_total{status="503"}' in client.get("/metrics").text


def test_a_connection_goes_on_after_a_request_that_was_not_let_in(published: Registry, redis_url: str) -> None:
    chunked = b"POST /v2/models/student/infer HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
    with full_scorer(published, redis_url) as client, connected(client) as kept:
        request = post_of("/score", "x-request-id: a-1\r\n")
        kept.sendall(request[:-10])
        time.sleep(0.05)  # so that the body comes in parts
        kept.sendall(request[-10:])
        status, headers, _ = reply_of(kept)
        assert (status, headers["retry-after"], headers["x-request-id"]) == (503, "1", "a-1")
        assert "connection" not in headers
        kept.sendall(chunked + b"4\r\nabcd\r\n0\r\n\r\n")
        status, _, reply = reply_of(kept)
        assert (status, reply) == (503, {"error": "2 requests are under way, and no more are taken at a time"})
        kept.sendall(b"GET /readyz HTTP/1.1\r\nhost: a\r\n\r\n")
        assert reply_of(kept)[0] == 200
        kept.sendall(post_of("/score", "expect: 100-continue\r\nconnection: close\r\n"))
        assert b"\r\n\r\nHTTP/1.1 503 " in until_closed(kept)  # after 100 Continue


def test_requests_sent_in_one_piece_are_answered_in_their_order(published: Registry, redis_url: str) -> None:
    with full_scorer(published, redis_url) as client, connected(client) as pipelined:
        closing = post_of("/score", "connection: close\r\n")
        pipelined.sendall(post_of("/score") + b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n" + post_of("/score") + closing)
        said = until_closed(pipelined)
        assert re.findall(rb"HTTP/1.1 (\d+) ", said) == [b"503", b"200", b"503", b"503"]


def test_an_old_client_that_is_not_let_in_is_closed(published: Registry, redis_url: str) -> None:
    with full_scorer(published, redis_url) as client, connected(client) as old:
        old.sendall(post_of("/score", http="1.0"))
        assert until_closed(old).startswith(b"HTTP/1.1 503 ")


TRACE = "0123456789abcdef" * 2


@pytest.mark.parametrize(
    ("headers", "request_id"),
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
    published: Registry, redis_url: str, headers: dict[str, str], request_id: str | None
) -> None:
    with scorer(published, redis_url) as client:
        for path, status in (("/score", 200), ("/v2/models/student/infer", 400)):
            answer = client.post(path, json=BODY, headers=headers)
            assert (answer.status_code, answer.headers.get("x-request-id")) == (status, request_id)


def test_a_request_for_scores_is_a_span_in_the_trace_of_its_caller(
    published: Registry, redis_url: str, spans: Any
) -> None:
    with scorer(published, redis_url) as client:
        caller = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}
        assert client.post("/score", json=BODY, headers=caller).status_code == 200
        assert client.post("/score", json={**BODY, "item_ids": []}).status_code == 422
        assert client.post("/v2/models/student/infer", json=BODY, headers=caller).status_code == 400
        assert client.get("/readyz").status_code == 200
    asked, wrong, inference = spans()
    assert (asked.name, asked.kind.name) == ("POST /score", "SERVER")
    assert (f"{asked.context.trace_id:032x}", f"{asked.parent.span_id:016x}") == (TRACE, "00f067aa0ba902b7")
    assert asked.attributes["http.response.status_code"] == 200
    assert (wrong.parent, wrong.attributes["http.response.status_code"]) == (None, 422)
    assert inference.name == "POST /v2/models/{model}/infer"


def test_who_has_no_token_is_refused_and_a_changed_file_counts_within_a_second(
    published: Registry, redis_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def status(token: str | None) -> int:
        headers = {} if token is None else {"authorization": token}
        return client.post("/score", json=BODY, headers=headers).status_code

    path = tmp_path / "tokens"
    path.write_text(f"# of the shop\n{FIRST}\n\n{SECOND}\n")
    with scorer(published, redis_url, tokens=Tokens(path)) as client:
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


@pytest.mark.parametrize("content", [None, "", "# none\n", "short\n", "\xe4" * 7, f"{FIRST}\n{'ä' * 16}\n"])
def test_a_file_without_good_tokens_is_refused_at_the_start(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "tokens").write_text(content)
    with pytest.raises(ConfigurationError, match="GRAFT_HTTP_TOKENS_FILE"):
        Tokens(tmp_path / "tokens")


@pytest.fixture
def tokens_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file with the first token, which is looked at for each request."""
    monkeypatch.setattr(admission, "_LOOK_SECONDS", 0.0)
    path = tmp_path / "tokens"
    path.write_text(FIRST)
    return path


def test_a_byte_order_mark_is_no_part_of_the_first_token(tokens_path: Path) -> None:
    tokens_path.write_bytes(b"\xef\xbb\xbf" + f"{FIRST}\r\n{SECOND}\r\n".encode())
    tokens = Tokens(tokens_path)
    assert tokens.allow(f"Bearer {FIRST}")
    assert tokens.allow(f"Bearer {SECOND}")


def test_a_file_is_read_again_after_it_could_not_be(tokens_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, tokens = admission._read, Tokens(tokens_path)
    tokens_path.write_text(f"{SECOND}\n")

    def refused(_path: Path) -> list[bytes]:
        raise ConfigurationError(["no right to read it"])

    monkeypatch.setattr(admission, "_read", refused)  # as for a file without the right to read; root reads any
    assert tokens.allow(f"Bearer {FIRST}")
    monkeypatch.setattr(admission, "_read", read)
    tokens_path.chmod(0o644)
    assert tokens.allow(f"Bearer {SECOND}")
    assert not tokens.allow(f"Bearer {FIRST}")


def test_a_file_that_is_written_in_two_pieces_at_one_time_is_read_whole(tokens_path: Path) -> None:
    tokens = Tokens(tokens_path)
    tokens_path.write_text(SECOND)
    state = tokens_path.stat()
    assert tokens.allow(f"Bearer {SECOND}")
    with tokens_path.open("a") as file:
        file.write(f"\n{FIRST}\n")
    os.utime(tokens_path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert tokens.allow(f"Bearer {FIRST}")


def test_a_file_that_changes_while_it_is_first_read_is_read_again(
    tokens_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = admission._read

    def read_then_changed(file: Path) -> list[bytes]:
        content = read(file)
        new = tokens_path.with_name("new")
        new.write_text(SECOND)
        new.rename(tokens_path)
        monkeypatch.setattr(admission, "_read", read)
        return content

    monkeypatch.setattr(admission, "_read", read_then_changed)
    tokens = Tokens(tokens_path)
    assert tokens.allow(f"Bearer {SECOND}")
    assert not tokens.allow(f"Bearer {FIRST}")
