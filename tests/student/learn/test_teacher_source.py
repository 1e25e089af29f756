"""Where an example's logit comes from: the log, else the cache; and never from before `teacher.trained_until`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from runtime.telemetry import StopSignal
from stream.events import EntityId, Example, UsedLogits, impression_mark
from stream.log.examples import ExampleRecord
from stream.log.logged_logits import LoggedLogits
from stream.log.logit_archive import LogitArchive
from stream.log.used_logits import UsedRecord, UsedRow
from student.learn.exchange import ALONE
from student.learn.learner import Learner
from student.learn.process.logits import LogitSource
from student.learn.process.teacher_source import BEFORE, LOGGED, TeacherSource
from student.versions.registry import Registry
from teacher_cache.cache.cache import CachedLogits
from tests.student.conftest import Toy
from tests.student.learn.learning_in_memory import learn_in_memory

GENERATION = "g1"
TOY = Toy()


class Cache:
    """Has a logit for every pair that is not a miss of the toy's, and counts what it was asked for."""

    generation = GENERATION

    def __init__(self, *, misses: bool = True) -> None:
        self.asked: list[tuple[EntityId, EntityId]] = []
        self._misses = misses

    def keys_of(self, examples: Sequence[Example]) -> Sequence[Example]:
        return examples

    def get(self, examples: Sequence[Example]) -> CachedLogits:
        self.asked += [(example.user_id, example.item_id) for example in examples]
        return CachedLogits(TOY.logits(examples, misses=self._misses), np.zeros(len(examples)))

    def count_reads(self, hits: int, misses: int) -> None: ...


class Noted:
    """Takes note as `UsedLogitsWriter` does."""

    is_full = False

    def __init__(self) -> None:
        self.rows: list[UsedRow] = []

    def add(self, rows: Sequence[UsedRow]) -> None:
        self.rows += rows

    def flush(self) -> bool:
        return True

    def log(self, folder: Path, learner: str = "a") -> Path:
        """The example log's part of what was noted."""
        archive = LogitArchive(folder, {}, None)
        archive.add([UsedRecord(0, 0, as_record(self.rows, learner))])
        archive.flush()
        return folder


def as_record(rows: Sequence[UsedRow], learner: str) -> UsedLogits:
    return UsedLogits(
        topic_id=None,
        learner=learner,
        generation=GENERATION,
        offsets=[row.offset for row in rows],
        impressions=[impression_mark(row.impression_id) for row in rows],
        logits=[row.logits for row in rows],
    )


def records(count: int, first: int = 0) -> list[ExampleRecord]:
    return [ExampleRecord(0, n, TOY.example(n)) for n in range(first, first + count)]


def source(cache: Any, **options: Any) -> TeacherSource:
    return TeacherSource(LogitSource(cache, 3, 0), ALONE, tasks=3, **options)


def said(of: TeacherSource, asked: Sequence[ExampleRecord]) -> NDArray[np.float32]:
    logit_BT = of.fetch(asked, StopSignal())
    assert logit_BT is not None
    return logit_BT


def test_what_the_cache_had_is_noted_and_comes_back_from_the_log_bit_for_bit(tmp_path: Path) -> None:
    asked, noted = records(20), Noted()
    live_BT = said(source(Cache(), used=noted), asked)
    assert np.isnan(live_BT).any()
    assert [row.offset for row in noted.rows] == list(range(20))
    assert sum(row.logits is None for row in noted.rows) == np.isnan(live_BT).all(axis=1).sum()
    nothing, again = Cache(), Noted()
    log = LoggedLogits(noted.log(tmp_path), GENERATION)
    learnt_BT = said(source(nothing, logged=log, used=again), asked)
    assert learnt_BT.tobytes() == live_BT.tobytes()
    assert (nothing.asked, again.rows) == ([], [])


def test_the_cache_is_asked_for_what_the_log_does_not_say_and_that_is_noted(tmp_path: Path) -> None:
    noted, more, cache = Noted(), Noted(), Cache(misses=False)
    said(source(Cache(), used=noted), records(6))
    log = LoggedLogits(noted.log(tmp_path), GENERATION)
    before = LOGGED._value.get()
    learnt_BT = said(source(cache, logged=log, used=more), records(8))
    assert LOGGED._value.get() - before == 6
    assert cache.asked == [(r.example.user_id, r.example.item_id) for r in records(2, 6)]
    assert [row.offset for row in more.rows] == [6, 7]
    expected = TOY.logits([record.example for record in records(6)])
    np.testing.assert_array_equal(learnt_BT[:6], expected)


def test_another_generation_s_log_is_as_if_it_had_nothing(tmp_path: Path) -> None:
    noted, cache = Noted(), Cache()
    said(source(Cache(), used=noted), records(4))
    said(source(cache, logged=LoggedLogits(noted.log(tmp_path), "other")), records(4))
    assert len(cache.asked) == 4


def test_filled_misses_come_from_the_cache(tmp_path: Path) -> None:
    noted, cache = Noted(), Cache(misses=False)
    missed = np.isnan(said(source(Cache(), used=noted), records(20))).any(axis=1)
    assert 0 < missed.sum() < 20
    log = LoggedLogits(noted.log(tmp_path), GENERATION, fill_misses=True)
    learnt_BT = said(source(cache, logged=log), records(20))
    assert len(cache.asked) == missed.sum()
    assert np.isfinite(learnt_BT).all()


@pytest.mark.parametrize("logits", [[1.0, 2.0], [1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 2e9], [1.0, 2.0, 1e39], []])
def test_a_logged_logit_that_cannot_be_one_is_a_miss(tmp_path: Path, logits: list[float]) -> None:
    noted = Noted()
    noted.rows = [UsedRow(0, 0, "m0", logits)]
    log = LoggedLogits(noted.log(tmp_path), GENERATION)
    learnt_BT = said(source(Cache(), logged=log), records(1))
    assert np.isnan(learnt_BT).all()


def test_a_stop_while_kafka_takes_nothing_ends_the_wait() -> None:
    class Full(Noted):
        is_full = True

        def flush(self) -> bool:
            stop.set()
            return False

    stop = StopSignal()
    assert source(Cache(), used=Full()).fetch(records(2), stop) is None


class Kafka(Noted):
    """Takes nothing for the first `refusals` flushes; remembers how much it had when it took all."""

    def __init__(self, registry: Registry, refusals: int) -> None:
        super().__init__()
        self._registry, self._refusals = registry, refusals
        self.learner = ""
        self.flushed: list[int] = []
        self.published: list[int] = []
        """Examples of the newest version, at each flush."""

    def flush(self) -> bool:
        self.published.append(self._registry.load_manifest(str(self._registry.latest())).examples)
        self._refusals -= 1
        if self._refusals < 0:
            self.flushed.append(len(self.rows))
        return self._refusals < 0

    def close(self) -> None: ...


@pytest.mark.parametrize("refusals", [0, 4, 1_000_000])
def test_no_version_has_learnt_what_is_not_noted(toy: Any, tmp_path: Path, refusals: int) -> None:
    registry = Registry(tmp_path / "versions")
    kafka = Kafka(registry, refusals)

    def open_used(learner: str) -> Kafka:
        kafka.learner = learner
        return kafka

    examples = [toy.example(n) for n in range(60)]
    learn_in_memory(toy, registry, examples, every_seconds=1e-9, open_used=open_used)
    assert kafka.learner == registry.learner_id()
    learnt = [registry.load_manifest(version).examples for version in registry.versions()]
    assert learnt[0] == 0
    if refusals == 1_000_000:
        assert learnt == [0], "a version was published although Kafka took nothing"
        return
    assert learnt[-1] == 60
    assert kafka.published[:refusals] == [0] * refusals
    assert all(count <= noted for count, noted in zip(learnt[1:], kafka.flushed, strict=True))


@given(
    from_ms=st.integers(999_000, 1_042_000),
    logged=st.sets(st.integers(0, 39)),
    fill_misses=st.booleans(),
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=8),
)
def test_no_example_before_the_moment_ever_has_a_logit_by_any_way(
    tmp_path_factory: pytest.TempPathFactory, *, from_ms: int, logged: set[int], fill_misses: bool, sizes: list[int]
) -> None:
    """By the cache, the log and profiles; and each from the moment on has what it would have had."""
    whole = records(40)
    noted, more = Noted(), Noted()
    if logged:
        said(source(Cache(misses=False), used=noted), [whole[n] for n in sorted(logged)])
        log = LoggedLogits(noted.log(tmp_path_factory.mktemp("log")), GENERATION, fill_misses=fill_misses)
    else:
        log = LoggedLogits(tmp_path_factory.mktemp("log"), GENERATION)
    cache = Cache(misses=False)
    cut = source(cache, logged=log, used=more, from_ms=from_ms)
    first, before = 0, BEFORE._value.get()
    for size in sizes:
        part = whole[first : first + size]
        first += size
        if not part:
            break
        logit_BT = said(cut, part)
        may = np.array([record.example.event_time_ms >= from_ms for record in part])
        assert np.isfinite(logit_BT).all(axis=1).tolist() == may.tolist()
    read = whole[:first]
    early = [record for record in read if record.example.event_time_ms < from_ms]
    assert BEFORE._value.get() - before == len(early)
    names = {(record.example.user_id, record.example.item_id) for record in read} - {
        (record.example.user_id, record.example.item_id) for record in read if record not in early
    }
    assert not names & set(cache.asked)
    assert not {record.offset for record in early} & {row.offset for row in more.rows}


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
