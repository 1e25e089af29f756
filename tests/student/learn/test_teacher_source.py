"""Where an example's logit comes from: the log, else the cache; and never from before `teacher.trained_until`."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from runtime.telemetry import StopSignal
from stream.events import EntityId, Example
from stream.log.examples import ExampleRecord
from stream.positions import ArchivedLogits
from student.learn.exchange import ALONE
from student.learn.learner import Learner
from student.learn.process.teacher_source import BEFORE, LOGGED, TeacherSource, Teaching
from teacher_cache.cache.cache import CachedLogits
from tests.student.conftest import Toy

GENERATION = "g1"
TOY = Toy()
TASKS = 3


class Cache:
    """Has a logit for every pair that is not a miss of the toy's, and counts what it was asked for."""

    generation = GENERATION

    def __init__(self, *, misses: bool = True) -> None:
        self.asked: list[tuple[EntityId, EntityId]] = []
        self._misses = misses

    def keys_of(self, examples: Sequence[Example]) -> Sequence[Example]:
        return examples

    def get(self, examples: Sequence[Example]) -> CachedLogits:
        self.asked += pairs(examples)
        return CachedLogits(TOY.logits(examples, misses=self._misses), np.zeros(len(examples)))

    def count_reads(self, hits: int, misses: int) -> None: ...


def pairs(examples: Sequence[Example]) -> list[tuple[EntityId, EntityId]]:
    return [(example.user_id, example.item_id) for example in examples]


def logged(offset: int, generation: str = GENERATION) -> ArchivedLogits:
    """What an example log has of an example; no logit of the toy's teacher."""
    return ArchivedLogits(generation, [offset + 0.5] * TASKS)


def records(count: int, archived: Sequence[ArchivedLogits | None] = ()) -> list[ExampleRecord]:
    """The toy's first examples; the first of them with what the log has."""
    padded = [*archived, *[None] * (count - len(archived))]
    return [ExampleRecord(0, n, TOY.example(n), padded[n]) for n in range(count)]


def fetched(cache: Any, asked: Sequence[ExampleRecord], **changes: Any) -> NDArray[np.float32]:
    setup = TOY.setup(wait_seconds=0.0, **changes)
    logit_BT = TeacherSource(Teaching(cache, "t1", GENERATION), setup, ALONE).fetch(asked, StopSignal())
    assert logit_BT is not None
    return logit_BT


def test_the_cache_is_asked_for_what_the_log_has_no_logit_of() -> None:
    cache, before = Cache(misses=False), LOGGED._value.get()
    asked = records(8, [logged(n) if n % 2 else None for n in range(6)])
    logit_BT = fetched(cache, asked)
    assert LOGGED._value.get() - before == 3
    others = [n for n in range(8) if asked[n].archived is None]
    assert cache.asked == pairs([asked[n].example for n in others])
    np.testing.assert_array_equal(logit_BT[[1, 3, 5], 0], [1.5, 3.5, 5.5])
    np.testing.assert_array_equal(logit_BT[others], TOY.logits([asked[n].example for n in others], misses=False))


def test_logits_of_another_generation_are_as_if_there_were_none(caplog: pytest.LogCaptureFixture) -> None:
    cache = Cache(misses=False)
    fetched(cache, records(4, [logged(n, "g0") for n in range(4)]))
    assert len(cache.asked) == 4
    (warning,) = [record.getMessage() for record in caplog.records]
    assert "generation g0, where g1 is wanted" in warning


@pytest.mark.parametrize("logits", [[1.0, 2.0], [1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 2e9], [1.0, 2.0, 1e39], []])
def test_a_logged_logit_that_cannot_be_one_is_asked_for(logits: list[float]) -> None:
    cache = Cache(misses=False)
    fetched(cache, records(1, [ArchivedLogits(GENERATION, logits)]))
    assert len(cache.asked) == 1


@given(
    from_ms=st.integers(999_000, 1_042_000),
    in_log=st.sets(st.integers(0, 39)),
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=8),
)
def test_no_example_before_the_moment_ever_has_a_logit_by_any_way(
    *, from_ms: int, in_log: set[int], sizes: list[int]
) -> None:
    """By the cache and the log; and each from the moment on has what it would have had."""
    whole = records(40, [logged(n) if n in in_log else None for n in range(40)])
    cache = Cache(misses=False)
    source = TeacherSource(
        Teaching(cache, "t1", GENERATION), TOY.setup(wait_seconds=0.0, logits_from_ms=from_ms), ALONE
    )
    first, before = 0, BEFORE._value.get()
    for size in sizes:
        part = whole[first : first + size]
        first += size
        if not part:
            break
        logit_BT = source.fetch(part, StopSignal())
        assert logit_BT is not None
        may = np.array([record.example.event_time_ms >= from_ms for record in part])
        assert np.isfinite(logit_BT).all(axis=1).tolist() == may.tolist()
    read = whole[:first]
    early = [record for record in read if record.example.event_time_ms < from_ms]
    assert BEFORE._value.get() - before == len(early)
    late = set(pairs([record.example for record in read if record not in early]))
    assert set(cache.asked) <= late


@settings(max_examples=20)  # each learns twice
@given(st.integers(999_000, 1_050_000))
def test_the_learner_itself_takes_no_logit_from_before_the_moment(from_ms: int) -> None:
    """Whoever gives it: what it learns is what it would learn without them."""
    examples = [TOY.example(n) for n in range(40)]
    logit_BT = TOY.logits(examples, misses=False)
    without_BT = logit_BT.copy()
    without_BT[[example.event_time_ms < from_ms for example in examples]] = np.nan
    cut, plain = Learner(TOY.setup(logits_from_ms=from_ms)), Learner(TOY.setup())
    cut.learn(examples, logit_BT)
    plain.learn(examples, without_BT)
    ours, theirs = cut.tensors(), plain.tensors()
    assert all(tensor.tobytes() == theirs[name].tobytes() for name, tensor in ours.items())
