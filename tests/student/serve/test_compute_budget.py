"""How much is computed in one pass of the event loop, in which order, and that each request computes."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from student.serve import scoring
from student.serve.scoring import ComputeBudget


class Passes:
    """Counts the passes of the event loop."""

    def __init__(self) -> None:
        self.number = 0
        self._tick()

    def _tick(self) -> None:
        self.number += 1
        self._handle = asyncio.get_running_loop().call_soon(self._tick)

    def stop(self) -> None:
        self._handle.cancel()


async def computed(count: int, cancelled: Callable[[list[asyncio.Task[None]]], Awaitable[None]]) -> list[list[int]]:
    """Which of so many requests, that come at once, computed in each pass."""
    budget, passes, order = ComputeBudget(), Passes(), dict[int, list[int]]()

    async def request(number: int) -> None:
        await budget.wait()
        order.setdefault(passes.number, []).append(number)

    tasks = [asyncio.create_task(request(number)) for number in range(count)]
    await cancelled(tasks)
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 5)
    await asyncio.wait_for(budget.wait(), 5)  # the next one computes
    passes.stop()
    return list(order.values())


async def nobody(_tasks: list[asyncio.Task[None]]) -> None:
    return


def test_requests_that_take_long_compute_in_a_pass_each_and_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "_PASS_SECONDS", 0.0)
    assert asyncio.run(computed(20, nobody)) == [[number] for number in range(20)]


def test_short_ones_share_a_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "_PASS_SECONDS", 60.0)
    assert asyncio.run(computed(20, nobody)) == [list(range(20))]


@given(st.sets(st.integers(0, 11)), st.integers(0, 8))
def test_a_client_that_goes_away_stops_no_other(gone: set[int], passes: int) -> None:
    async def after(tasks: list[asyncio.Task[None]]) -> None:
        for _ in range(passes):
            await asyncio.sleep(0)
        for number in gone:
            tasks[number].cancel()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scoring, "_PASS_SECONDS", 0.0)
        done = [number for of_pass in asyncio.run(computed(12, after)) for number in of_pass]
    assert done == sorted(done)
    assert set(range(12)) - gone <= set(done)
