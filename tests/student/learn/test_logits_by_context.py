"""An example learns the teacher's logit of its own context: from the cache, and from the example log."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtime.telemetry import StopSignal
from stream.events import Example, TeacherRequest
from stream.log.archive import Archive
from stream.log.example_log import ExampleLog
from stream.log.examples import ExampleRecord
from student.learn.exchange import ALONE
from student.learn.process.teacher_source import TeacherSource, Teaching
from teacher_cache.backfill.backfill import backfill
from teacher_cache.cache.archive_look_up import ArchiveLookUp
from teacher_cache.cache.cache import LogitCache
from tests.rows import Listed
from tests.student.conftest import Toy
from tests.teacher_cache.hourly import CONTEXT, hourly_request, hourly_scorer, said_of


@pytest.fixture
def cache(redis_url: str) -> Iterator[LogitCache]:
    cache = LogitCache(redis_url, "p:g1", ("finish", "rating"), 100, CONTEXT)
    yield cache
    cache.close()


def _record(request: TeacherRequest, offset: int) -> ExampleRecord:
    return ExampleRecord(0, offset, Example(**request.model_dump(), labels={"like": 1.0}))


def _learnt(cache: LogitCache, records: list[ExampleRecord]) -> Any:
    setup = Toy().setup(wait_seconds=0.0, teacher_tasks=Toy.teacher_tasks[:2], distillation=())
    source = TeacherSource(Teaching(cache, "t1", "g1"), setup, ALONE)
    logit_BT = source.fetch(records, StopSignal())
    assert logit_BT is not None
    return logit_BT.tolist()


def test_two_impressions_of_one_user_and_item_learn_the_logits_of_their_own_hours_live_and_from_the_log(
    cache: LogitCache, tmp_path: Path
) -> None:
    requests = [hourly_request(n, 5, hour) for n, hour in enumerate((8, 21, None, 8))]
    records, own = [_record(request, n) for n, request in enumerate(requests)], [said_of(r) for r in requests]
    backfill(Listed(requests), hourly_scorer(tmp_path), cache, progress=lambda _rows, _reached: None)
    assert _learnt(cache, records) == own
    archive = Archive(tmp_path / "log", {}, ArchiveLookUp(cache, "g1"))
    archive.add(records)
    archive.flush()
    (logged,) = ExampleLog(tmp_path / "log").read({})
    away = LogitCache("redis://127.0.0.1:1/0", "p:g1", ("finish", "rating"), 100, CONTEXT)
    assert _learnt(away, logged) == own


def test_an_example_in_a_context_that_was_never_scored_learns_from_its_labels_alone(
    cache: LogitCache, tmp_path: Path
) -> None:
    backfill(Listed([hourly_request(0, 5, 8)]), hourly_scorer(tmp_path), cache, progress=lambda _rows, _reached: None)
    (row,) = _learnt(cache, [_record(hourly_request(1, 5, 9), 1)])
    assert np.isnan(row).all()
