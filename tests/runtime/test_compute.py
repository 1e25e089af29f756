"""Batches made ahead, and compiled code."""

import gc
import sys
from itertools import count
from threading import Event
from typing import Any

import numba
import pytest

from runtime import compute
from runtime.compute import made_ahead, throughput_first


@pytest.mark.parametrize("ahead", [0, 1, 3, 20])
def test_what_is_made_ahead_comes_whole_and_in_order(ahead):
    assert list(made_ahead(iter(range(10)), ahead)) == list(range(10))


def test_the_next_items_are_made_while_one_is_used():
    third = Event()

    def items():
        yield 1
        yield 2
        third.set()
        yield 3

    ahead = made_ahead(items(), 2)
    assert next(ahead) == 1
    assert third.wait(10)
    assert list(ahead) == [2, 3]


def test_an_error_comes_in_its_turn():
    def items():
        yield 1
        raise ValueError("second")

    ahead = made_ahead(items(), 4)
    assert next(ahead) == 1
    with pytest.raises(ValueError, match="second"):
        next(ahead)


def test_nothing_more_is_made_when_it_is_closed():
    made = []

    def items():
        for n in count():
            made.append(n)
            yield n

    ahead = made_ahead(items(), 2)
    assert next(ahead) == 0
    ahead.close()
    assert len(made) <= 4
    so_far = list(made)
    assert made == so_far


def test_the_interpreter_is_as_before_after_the_block():
    before = sys.getswitchinterval(), gc.get_threshold()
    with throughput_first():
        assert sys.getswitchinterval() == pytest.approx(0.0002)
        assert gc.get_threshold()[0] == 100_000
    assert (sys.getswitchinterval(), gc.get_threshold()) == before


def test_code_that_can_be_kept_nowhere_is_compiled_all_the_same_and_that_is_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    njit = numba.njit

    def nowhere_to_keep(*functions: Any, **options: Any) -> Any:
        if options.get("cache"):
            raise RuntimeError("cannot cache function: no locator available")  # as numba does
        return njit(*functions, **options)

    monkeypatch.setattr(numba, "njit", nowhere_to_keep)
    compute._warn_of_each_start.cache_clear()
    twice, thrice = compute.compiled(lambda x: 2 * x), compute.compiled(lambda x: 3 * x)
    assert (twice(2), thrice(2)) == (4, 6)
    (said,) = caplog.messages
    assert "NUMBA_CACHE_DIR" in said
