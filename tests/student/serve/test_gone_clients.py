"""Clients that go away while their requests are under way: that is no fault of the scorer, and takes no place in it."""

import asyncio
import json
import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from student.serve.connections import Limits
from student.serve.swap import ChampionSwap, Serving
from student.versions.registry import Registry
from tests.student.serve.test_limits import connected, post_of, scorer
from tests.student.serve.test_server import BODY, publish, until

SLOW = json.dumps({**BODY, "version": "champion"}).encode()


class Gate:
    """Requests that name a version wait here."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun, self.goes_on, self.ended = threading.Semaphore(0), threading.Event(), threading.Semaphore(0)
        as_it_is = ChampionSwap.named

        async def slow(swap: ChampionSwap, text: str) -> Serving:
            self.begun.release()
            await asyncio.to_thread(self.goes_on.wait, 10)
            self.ended.release()
            return await as_it_is(swap, text)

        monkeypatch.setattr(ChampionSwap, "named", slow)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    gate = Gate(monkeypatch)
    yield gate
    gate.goes_on.set()


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
def test_a_client_that_goes_away_is_no_error_of_ours(
    tmp_path: Path, redis_url: str, gate: Gate, caplog: pytest.LogCaptureFixture, more: bytes
) -> None:
    registry = Registry(tmp_path / "versions")
    publish(registry)
    with caplog.at_level(logging.ERROR), scorer(registry, redis_url, Limits(requests=1, send_seconds=0.2)) as client:
        before = client.get("/metrics").text.count('graft_scorer_requests_total{status="500"}')
        with connected(client) as one:
            one.sendall(post_of("/score", body=SLOW) + more)
            assert gate.begun.acquire(timeout=5)
        until(lambda: client.get("/healthz").status_code == 200, "an answer to others")
        gate.goes_on.set()
        assert gate.ended.acquire(timeout=5)
        until(lambda: client.post("/score", json=BODY).status_code == 200, "a place for others")
        assert client.get("/metrics").text.count('graft_scorer_requests_total{status="500"}') == before
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []
