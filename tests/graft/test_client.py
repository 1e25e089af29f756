"""The client of the scoring endpoint: against a real scorer, and against one that fails as a test says."""

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from graft.client import AsyncScorerClient, RequestRefusedError, ScorerClient, ScorerUnavailableError, Scores
from lab.embedded import free_port
from student.serve.admission import Tokens
from student.versions.registry import Registry
from tests.student.serve.test_admission import FIRST
from tests.student.serve.test_connections import scorer
from tests.student.serve.test_server import publish

ANSWER = {"model_version": "v000001", "degraded": False, "item_ids": [10], "scores": {"like": [0.5]}}


@pytest.fixture
def url(tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A scorer with two versions, which asks for a token."""
    monkeypatch.setattr("student.serve.swap._READ_SECONDS", 5.0)
    registry, tokens = Registry(tmp_path / "versions"), tmp_path / "tokens"
    for _ in range(2):
        publish(registry)
    tokens.write_text(FIRST)
    with scorer(registry, redis_url, tokens=Tokens(tokens)) as running:
        yield str(running.base_url)


def failing(*outcomes: int | Exception, retry_after: str | None = None) -> tuple[httpx.MockTransport, list[float]]:
    """A scorer whose tries end so, then well; and when it was asked."""
    asked: list[float] = []

    def answer(_request: httpx.Request) -> httpx.Response:
        asked.append(time.monotonic())
        outcome = outcomes[len(asked) - 1] if len(asked) <= len(outcomes) else 200
        if isinstance(outcome, Exception):
            raise outcome
        headers = {} if retry_after is None else {"retry-after": retry_after}
        error = {"error": {"message": "busy", "faults": [{"field": "user_id"}]}}
        return httpx.Response(outcome, json=ANSWER if outcome == 200 else error, headers=headers)

    return httpx.MockTransport(answer), asked


def scored(transport: httpx.MockTransport, **settings: Any) -> Scores:
    with ScorerClient("http://scorer", transport=transport, **settings) as client:
        return client.score(1, [10])


def scored_async(transport: httpx.MockTransport, **settings: Any) -> Scores:
    async def main() -> Scores:
        async with AsyncScorerClient("http://scorer", transport=transport, **settings) as client:
            return await client.score(1, [10])

    return asyncio.run(main())


both = pytest.mark.parametrize("score", [scored, scored_async])


def test_it_scores_by_the_champion_and_by_a_version_that_it_names(url: str) -> None:
    with ScorerClient(url, token=FIRST, timeout_seconds=5) as client:
        found = client.score(1, [10, 11], context={"hour": 3})
        assert found == Scores("v000002", False, [10, 11], {"like": [0.5, 0.5], "rating": [2.0, 2.0]})
        assert client.score(1, [10], version="v000001").scores["rating"] == [1.0]
        explained = client.score(1, [10, 11], context={"hour": 3}, impression_ids=["m1", None], explain=True)
        assert explained._replace(explanation=None) == found
        assert explained.explanation
        assert explained.explanation["unknown_items"] == [10, 11]

    async def asked() -> Scores:
        async with AsyncScorerClient(url, token=FIRST, timeout_seconds=5) as client:
            return (await asyncio.gather(*(client.score(1, [10, 11], context={"hour": 3}) for _ in range(30))))[-1]

    assert asyncio.run(asked()) == found


def test_what_the_scorer_refuses_is_told_with_its_faults(url: str) -> None:
    with ScorerClient(url, token=FIRST, timeout_seconds=5) as client, pytest.raises(RequestRefusedError) as refused:
        client.score("1", [])
    assert (refused.value.status, [fault["field"] for fault in refused.value.faults]) == (422, ["user_id", "item_ids"])
    with (
        ScorerClient(url, timeout_seconds=5) as client,
        pytest.raises(RequestRefusedError, match="401: this request has no token"),
    ):
        client.score(1, [10])


@both
@pytest.mark.parametrize("outcome", [503, 502, 429, httpx.ConnectError("refused"), httpx.ReadError("broken")])
def test_what_may_pass_is_tried_again(score: Callable[..., Scores], outcome: int | Exception) -> None:
    transport, asked = failing(outcome, outcome)
    assert score(transport, timeout_seconds=5).model_version == "v000001"
    assert len(asked) == 3


@both
def test_after_the_last_try_the_reason_is_told(score: Callable[..., Scores]) -> None:
    transport, asked = failing(*[503] * 9)
    with pytest.raises(ScorerUnavailableError, match="no scores after 3 tries; the last one: 503: busy"):
        score(transport, timeout_seconds=5)
    assert len(asked) == 3


@both
@pytest.mark.parametrize("status", [400, 401, 404, 422])
def test_what_would_be_refused_again_is_tried_once(score: Callable[..., Scores], status: int) -> None:
    transport, asked = failing(status)
    with pytest.raises(RequestRefusedError, match=f"{status}: busy"):
        score(transport)
    assert len(asked) == 1


@both
def test_retry_after_is_honoured_within_the_deadline(score: Callable[..., Scores]) -> None:
    transport, asked = failing(503, retry_after="1")
    score(transport, timeout_seconds=5)
    assert asked[1] - asked[0] >= 1
    transport, asked = failing(503, retry_after="1")
    with pytest.raises(ScorerUnavailableError, match="no scores before the deadline, try 1: 503: busy"):
        score(transport, timeout_seconds=0.5)
    assert len(asked) == 1


def test_a_scorer_that_is_not_there_is_said_in_one_line() -> None:
    client = ScorerClient(f"http://127.0.0.1:{free_port()}", retries=1)
    with client, pytest.raises(ScorerUnavailableError, match="no scores after 2 tries; the last one: ConnectError"):
        client.score(1, [10])


def test_a_proxys_own_page_is_no_riddle() -> None:
    transport = httpx.MockTransport(lambda _request: httpx.Response(418, text="<html>teapot</html>"))
    with pytest.raises(RequestRefusedError, match="418: <html>teapot"):
        scored(transport)


def test_it_loads_neither_torch_nor_feast_nor_kafka() -> None:
    heavy = ("torch", "feast", "kafka", "numpy", "student")
    code = f"import sys, graft.client; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
