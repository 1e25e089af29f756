"""Waiting for teacher logits: a little, on a real Redis, and ever less when they do not come."""

import threading
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import numpy as np
import pytest

from lab.embedded import free_port
from runtime.telemetry import StopSignal
from student.learn.process.logits import LogitSource
from teacher_cache.cache.cache import LogitCache
from tests.student.learn.ranks import all_end_well, start_ranks
from tests.student.learn.train_process import logit_cache

WAIT_SECONDS = 0.15


@pytest.fixture
def cache(redis_url: str) -> Iterator[LogitCache]:
    cache = LogitCache(redis_url, "t1", ("a", "b", "c"), 3600)
    yield cache
    cache.close()


def put(cache: LogitCache, examples: list[Any], value: float = 1.0) -> None:
    logit_BT = np.full((len(examples), 3), value, np.float32)
    cache.put(cache.keys_of(examples), logit_BT, time.time_ns() // 1_000_000)


def fetched(source: LogitSource, examples: list[Any]) -> tuple[Any, float]:
    began = time.monotonic()
    logit_BT = source.fetch(examples, StopSignal())
    return logit_BT, time.monotonic() - began


def test_what_is_there_is_not_waited_for(toy: Any, cache: LogitCache) -> None:
    (batch,) = toy.batches(1)
    put(cache, batch)
    logit_BT, seconds = fetched(LogitSource(cache, 3, 60), batch)
    assert logit_BT.tolist() == [[1.0] * 3] * 8
    assert seconds < 5


def test_what_comes_within_the_wait_is_there(toy: Any, cache: LogitCache) -> None:
    (batch,) = toy.batches(1)
    put(cache, batch[:3])
    timer = threading.Timer(0.2, put, (cache, batch[3:], 2.0))
    timer.start()
    logit_BT, _ = fetched(LogitSource(cache, 3, 60), batch)
    timer.join()
    assert np.isfinite(logit_BT).all()


def test_the_misses_of_a_full_wait_are_nan(toy: Any, cache: LogitCache) -> None:
    (batch,) = toy.batches(1)
    put(cache, batch[:3])
    logit_BT, seconds = fetched(LogitSource(cache, 3, WAIT_SECONDS), batch)
    assert seconds >= WAIT_SECONDS
    seen = {(e.user_id, e.item_id) for e in batch[:3]}
    assert np.isfinite(logit_BT).all(axis=1).tolist() == [(e.user_id, e.item_id) in seen for e in batch]


def test_an_absent_teacher_is_waited_for_ever_more_rarely(toy: Any, cache: LogitCache) -> None:
    source = LogitSource(cache, 3, WAIT_SECONDS)
    waited = [fetched(source, batch)[1] >= WAIT_SECONDS for batch in toy.batches(14)]
    assert [i for i, long in enumerate(waited) if long] == [0, 2, 6]


def test_a_fruitful_wait_restores_the_patience(toy: Any, cache: LogitCache) -> None:
    source = LogitSource(cache, 3, WAIT_SECONDS)
    batches = toy.batches(6)
    fetched(source, batches[0])
    fetched(source, batches[1])
    timer = threading.Timer(0.05, put, (cache, batches[2]))
    timer.start()
    assert np.isfinite(fetched(source, batches[2])[0]).all()
    timer.join()
    assert fetched(source, batches[5])[1] >= WAIT_SECONDS


def test_without_a_wait_misses_come_at_once(toy: Any, cache: LogitCache) -> None:
    (batch,) = toy.batches(1)
    logit_BT, _ = fetched(LogitSource(cache, 3, 0), batch)
    assert np.isnan(logit_BT).all()


def test_an_unreachable_redis_is_a_miss_that_is_logged_once(toy: Any, caplog: pytest.LogCaptureFixture) -> None:
    cache = LogitCache(f"redis://127.0.0.1:{free_port()}/0", "t1", ("a", "b", "c"), 3600)
    source = LogitSource(cache, 3, WAIT_SECONDS)
    for batch in toy.batches(3):
        assert np.isnan(fetched(source, batch)[0]).all()
    assert len([r for r in caplog.records if "does not answer" in r.getMessage()]) == 1


def test_every_rank_hears_what_all_ranks_found_and_all_stop_together(toy: Any, redis_url: str) -> None:
    examples = [toy.example(n) for n in range(9)]
    logit_BT = toy.logits(examples)
    known = [n for n in range(9) if np.isfinite(logit_BT[n]).all()]
    assert 0 < len(known) < len(examples)
    with closing(logit_cache(redis_url)) as cache:
        cache.put(cache.keys_of([examples[n] for n in known]), logit_BT[known], time.time_ns() // 1_000_000)
    all_end_well(start_ranks(2, ["tests.student.learn.rank_teacher", redis_url]), 60)
