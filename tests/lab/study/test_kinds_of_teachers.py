"""The simulated pair's own teacher through all three kinds: equal logits, and equal students."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lab.study.learners.teachers import requests_of
from lab.study.log.study_log import write_log
from runtime.telemetry import StopSignal
from student.learn.config import PublishConfig
from student.learn.process.publishing import Publication
from student.learn.process.teacher_source import Teaching
from student.learn.process.train import Examples, run_training
from student.versions.registry import Registry
from teacher_cache.backfill.backfill import backfill
from teacher_cache.cache.cache import LogitCache
from teacher_cache.config import TeacherConfig
from teacher_cache.domain.context_key import ContextKey
from teacher_cache.domain.domain_map import DomainMap
from teacher_cache.domain.request_scorer import RequestScorer
from teacher_cache.kinds.load import load_teacher
from tests.lab.study.conftest import Pair, no_progress
from tests.lab.study.pair_kinds import KINDS, config_of, outputs_of
from tests.lab.study.test_cell import STEP, _Source
from tests.rows import Listed

_LEARNT = 400


def _student(pair: Pair, config: TeacherConfig | None, redis_url: str, folder: Path) -> Mapping[str, NDArray[Any]]:
    """All tensors of the learner that has learnt the log's beginning with the teacher's logits, read from Redis.

    None: without logits.
    """
    context = ContextKey.seen_by(pair.project.teacher, pair.spec)
    tasks = [task.name for task in pair.project.teacher.tasks]
    cache = LogitCache(redis_url, f"pair:{folder.name}", tasks, 3600, context)
    if config is not None:
        teacher = load_teacher(config, pair.project.folder)
        scorer = RequestScorer(teacher, DomainMap(config, pair.project.folder, teacher, pair.spec), pair.spec)
        backfill(Listed(requests_of(pair.log)), scorer, cache, progress=no_progress)
    records = pair.log.records[: _LEARNT // STEP * STEP]
    write_log(folder / "log", records)
    registry, stop = Registry(folder / "versions"), StopSignal()
    setup = pair.project.learner_setup(pair.spec)
    run_training(
        replace(setup, wait_seconds=0) if config is None else setup,
        Examples(lambda _offsets: _Source(folder / "log", stop)),
        Teaching(cache, pair.project.teacher.version),
        Publication(registry, PublishConfig(every_seconds=60)),
        stop,
    )
    newest = registry.latest()
    assert newest is not None
    manifest, tensors, _ = registry.load_learner(newest)
    assert manifest.examples == len(records) > 300
    return tensors


@pytest.mark.timeout(300)
def test_all_kinds_give_the_same_logits_and_equal_logits_the_same_student(
    pair: Pair, redis_url: str, tmp_path: Path
) -> None:
    found: dict[str, dict[str, NDArray[np.float32]]] = {}
    students: dict[str, Mapping[str, NDArray[Any]]] = {}
    for number, kind in enumerate(KINDS):
        folder = tmp_path / str(number)
        folder.mkdir()
        with config_of(kind, pair.project, pair.spec, requests_of(pair.log), folder) as config:
            found[kind] = outputs_of(config, pair.project.folder, pair.spec, requests_of(pair.log))
            if all(found[kind][name].tobytes() == values.tobytes() for name, values in found["onnx"].items()):
                students[kind] = _student(pair, config, redis_url, folder)
    for kind in KINDS:
        assert found[kind].keys() == found["onnx"].keys()
        for name, values in found["onnx"].items():
            np.testing.assert_allclose(found[kind][name], values, rtol=0, atol=1e-5, err_msg=f"{kind}: {name}")
    assert set(students) == set(KINDS)
    first = students["onnx"]
    for kind, tensors in students.items():
        assert tensors.keys() == first.keys()
        differ = [name for name, tensor in tensors.items() if tensor.tobytes() != first[name].tobytes()]
        assert differ == [], kind
    (tmp_path / "none").mkdir()
    without = _student(pair, None, redis_url, tmp_path / "none")
    assert any(without[name].tobytes() != tensor.tobytes() for name, tensor in first.items())
