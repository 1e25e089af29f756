"""Versions that are loaded while others come and go: their readers stay open, and nobody waits who need not."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from features.online.async_reader import AsyncOnlineReader
from features.spec import Feature, FeatureSpec
from student.serve import swap as swap_module
from student.serve.requests import RequestError
from student.serve.swap import ChampionSwap, Serving
from student.versions.registry import Registry
from tests.student.serve.test_swap import DRAFT, publish, serving

_AGE = Feature(
    name="age", source="user", role="dense", dtype="float", default=0.0, view="users", feature="age", value_type="FLOAT"
)
DRAFTS = [
    DRAFT.model_copy(
        update={"spec": FeatureSpec(**DRAFT.spec.model_dump() | {"feast_project": name, "features": [_AGE]})}
    )
    for name in ("first", "second")
]
"""Of two feature specs, so that versions of the one cannot use the reader of the other."""


class _Stopped:
    """Stops the loading of one version just before it is there, until it is told to go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, version: str) -> None:
        self.reached, self.goes_on = threading.Event(), threading.Event()
        warm_up_on = swap_module._warm_up_on

        def stopping(requests: Any, new: Any, former: Any) -> None:
            if new.version == version:
                self.reached.set()
                assert self.goes_on.wait(20)
            warm_up_on(requests, new, former)

        monkeypatch.setattr(swap_module, "_warm_up_on", stopping)


@pytest.fixture
def run(tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Runs a test's coroutine with a registry and a swap, whose readers close as soon as they are let go."""
    monkeypatch.setattr(swap_module, "_CLOSE_READER_SECONDS", 0.0)

    def run_it(body: Callable[[Registry, ChampionSwap], Awaitable[None]]) -> None:
        async def main() -> None:
            registry = Registry(tmp_path / "versions")
            swap = ChampionSwap(registry, redis_url)
            try:
                await body(registry, swap)
            finally:
                await swap.close()

        asyncio.run(main())

    return run_it


async def closed(swap: ChampionSwap) -> None:
    """Until what is being closed is."""
    await asyncio.gather(*swap._closing)


async def named_while_the_spec_changes(
    registry: Registry, swap: ChampionSwap, stopped: _Stopped
) -> tuple[asyncio.Task[Serving], AsyncOnlineReader]:
    """The request for v000001, which is being loaded, and the reader that it takes from a champion that is gone."""
    publish(registry, DRAFTS[0])
    publish(registry, DRAFTS[0])
    await swap.refresh()
    assert swap.current
    former = swap.current.reader
    asked = asyncio.create_task(swap.named("v000001"))
    await asyncio.to_thread(stopped.reached.wait, 20)
    publish(registry, DRAFTS[1])
    await swap.refresh()
    assert serving(swap) == "v000003"
    return asked, former


def test_a_version_named_while_the_champions_spec_changes_reads_redis(
    run: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped = _Stopped(monkeypatch, "v000001")

    async def body(registry: Registry, swap: ChampionSwap) -> None:
        asked, _ = await named_while_the_spec_changes(registry, swap, stopped)
        await closed(swap)
        stopped.goes_on.set()
        assert not (await (await asked).reader.read(1, [10], {})).degraded

    run(body)


def test_a_champion_whose_spec_another_version_brought_reads_redis_when_that_is_let_go(
    run: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(swap_module, "_MOST_OTHERS", 1)
    stopped = _Stopped(monkeypatch, "v000003")

    async def body(registry: Registry, swap: ChampionSwap) -> None:
        publish(registry, DRAFTS[1])
        publish(registry, DRAFTS[0])
        await swap.refresh()
        await swap.named("v000001")
        publish(registry, DRAFTS[1])
        swapping = asyncio.create_task(swap.refresh())
        await asyncio.to_thread(stopped.reached.wait, 20)
        await swap.named("v000002-control")
        await closed(swap)
        stopped.goes_on.set()
        await swapping
        assert serving(swap) == "v000003"
        assert swap.current
        assert not (await swap.current.reader.read(1, [10], {})).degraded

    run(body)


def test_the_reader_of_a_version_that_is_refused_after_all_is_closed(
    run: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped = _Stopped(monkeypatch, "v000001")

    async def body(registry: Registry, swap: ChampionSwap) -> None:
        asked, former = await named_while_the_spec_changes(registry, swap, stopped)
        asked.cancel()
        stopped.goes_on.set()
        await asyncio.gather(asked, return_exceptions=True)
        await closed(swap)
        assert (await former.read(1, [10], {})).degraded

    run(body)


def test_a_loaded_version_is_had_while_another_one_is_being_loaded_and_few_wait_for_that(
    run: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped = _Stopped(monkeypatch, "v000001")

    async def body(registry: Registry, swap: ChampionSwap) -> None:
        for _ in range(3):
            publish(registry, DRAFTS[0])
        await swap.refresh()
        await swap.named("v000002")
        waiting = [asyncio.create_task(swap.named("v000001")) for _ in range(swap_module._MOST_AWAITING)]
        await asyncio.to_thread(stopped.reached.wait, 20)
        assert [(await swap.named(name)).version for name in ("v000002", "champion")] == ["v000002", "v000003"]
        async with asyncio.timeout(20):
            while True:
                if swap._awaiting_other == swap_module._MOST_AWAITING:
                    break
                await asyncio.sleep(0.01)
        with pytest.raises(RequestError, match="503: 8 requests wait for versions that are not loaded"):
            await swap.named("v000001")
        waiting[-1].cancel()
        stopped.goes_on.set()
        found = await asyncio.gather(*waiting, return_exceptions=True)
        assert [getattr(one, "version", None) for one in found] == ["v000001"] * (len(waiting) - 1) + [None]
        assert swap._awaiting_other == 0
        assert (await swap.named("v000001")).version == "v000001"

    run(body)
