"""The client of the scoring endpoint against what is slow, of another release, or no scorer at all."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest

from graft.client import AsyncScorerClient, ScorerClient, ScorerUnavailableError, Scores
from tests.graft.test_client import ANSWER, both, failing

_REPLY_SECONDS = 0.4


class _Slow(BaseHTTPRequestHandler):
    """Answers each request after a while."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        time.sleep(_REPLY_SECONDS)
        body = httpx.Response(200, json=ANSWER).content
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_told: Any) -> None:
        """Nothing."""


@pytest.fixture
def slow_url() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Slow)
    serving = threading.Thread(target=server.serve_forever)
    serving.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    serving.join()
    server.server_close()


def test_the_wait_for_a_connection_counts_towards_the_deadline(slow_url: str) -> None:
    with ScorerClient(slow_url, connections=1, timeout_seconds=20, retries=0) as client:
        first = threading.Thread(target=client.score, args=(1, [10]))
        first.start()
        time.sleep(_REPLY_SECONDS / 4)
        with pytest.raises(ScorerUnavailableError):
            client.score(1, [10], timeout_seconds=1.5 * _REPLY_SECONDS)
        first.join()
        assert client.score(1, [10]).item_ids == [10]


def test_a_cancelled_call_leaves_its_connection_to_others(slow_url: str) -> None:
    async def main() -> Scores:
        async with AsyncScorerClient(slow_url, connections=1, timeout_seconds=20, retries=0) as client:
            calls = [asyncio.create_task(client.score(1, [10])) for _ in range(3)]
            await asyncio.sleep(_REPLY_SECONDS / 4)
            for call in calls:
                call.cancel()
            assert {type(one) for one in await asyncio.gather(*calls, return_exceptions=True)} == {
                asyncio.CancelledError
            }
            with pytest.raises(ScorerUnavailableError):
                await client.score(1, [10], timeout_seconds=_REPLY_SECONDS / 2)
            return await client.score(1, [10])

    assert asyncio.run(main()).item_ids == [10]


def scored_by(answer: httpx.Response | Exception) -> list[Callable[[], Scores]]:
    """Both clients, each asking for scores of what answers so."""

    def answered(_request: httpx.Request) -> httpx.Response:
        if isinstance(answer, Exception):
            raise answer
        return httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)  # one for each

    def one() -> Scores:
        with ScorerClient("http://scorer", transport=httpx.MockTransport(answered)) as client:
            return client.score(1, [10])

    async def other() -> Scores:
        async with AsyncScorerClient("http://scorer", transport=httpx.MockTransport(answered)) as client:
            return await client.score(1, [10])

    return [one, lambda: asyncio.run(other())]


def test_a_scorer_of_a_later_release_may_say_more() -> None:
    for score in scored_by(httpx.Response(200, json=ANSWER | {"more": 1})):
        assert score() == Scores(**ANSWER)


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(200, text="<html>welcome</html>"),
        httpx.Response(200, json=[1]),
        httpx.Response(200, json={"scores": {}}),
        httpx.Response(200, content=b"\xff\xfe"),
        httpx.Response(302, headers={"location": "/login"}),
        httpx.DecodingError("no gzip"),
    ],
)
def test_what_is_no_scorer_is_told_as_one_that_cannot_be_reached(answer: httpx.Response | Exception) -> None:
    for score in scored_by(answer):
        with pytest.raises(ScorerUnavailableError):
            score()


@both
@pytest.mark.parametrize("told", ["1000000", "9" * 5_000, formatdate(4e9, usegmt=True)])
def test_a_retry_after_beyond_the_deadline_ends_the_call_at_once(score: Callable[..., Scores], told: str) -> None:
    transport, asked = failing(503, retry_after=told)
    with pytest.raises(ScorerUnavailableError, match="no scores before the deadline, try 1: 503: busy"):
        score(transport, timeout_seconds=20)
    assert len(asked) == 1


@both
@pytest.mark.parametrize(
    "told", ["", "-5", "1.5", "soon", "nan", "Wed, 21 Oct 2015 07:28:00 GMT", "Wed, 99 Oct 2015 07:28:00 GMT"]
)
def test_a_retry_after_that_says_nothing_of_the_future_is_tried_again_soon(
    score: Callable[..., Scores], told: str
) -> None:
    transport, asked = failing(503, retry_after=told)
    assert score(transport, timeout_seconds=20).item_ids == [10]
    assert len(asked) == 2
