"""The learner process compares its examples with what serving saw, and learns the same whatever it finds."""

import json
import logging
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client import REGISTRY

from features.online.served_rows import ServedRow, ServedRowReader, set_command
from runtime.redis import connect, exchange
from stream.events import Example
from student.evaluate.skew import REPORT_FILE
from student.learn.batch import encode
from student.learn.process import skew_watch
from student.learn.process.skew_watch import SkewWatch
from student.versions.registry import Registry
from tests.student.conftest import Toy
from tests.student.learn.learning_in_memory import NO_REDIS, learn_in_memory

TOY = Toy()
EXAMPLES = [TOY.example(n) for n in range(300)]


def serve(url: str, examples: list[Example], *, age_off_by: float = 0.0) -> None:
    """Leave a row of each in Redis, as a scorer would have seen it."""
    features = encode(TOY.setup(), examples).features
    commands = []
    for place, example in enumerate(examples):
        dense_D = features.dense_BD[place] + np.array([age_off_by, 0, 0, 0], np.float32)
        times = example.event_time_ms, {"users": example.event_time_ms - 2_000}
        row = ServedRow(None, "v000001", times[0], TOY.spec.spec_id, dense_D, features.categorical_BC[place], times[1])
        commands.append(set_command(TOY.spec.feast_project, example.impression_id, row, 60))
    with connect(url) as client:
        assert set(exchange(client, commands)) == {b"OK"}


def learn(folder: Path, url: str) -> dict[str, Any] | None:
    """The report, if there is one, after the examples were learnt."""
    registry = Registry(folder)
    reader = ServedRowReader(url, TOY.spec)
    with closing(SkewWatch(reader, TOY.spec, registry.metrics_folder)) as skew:
        learn_in_memory(TOY, registry, EXAMPLES, skew=skew)
        skew.tell()
    return json.loads((registry.metrics_folder / REPORT_FILE).read_text())


def test_what_differs_is_in_the_report_the_metrics_and_once_in_the_log(
    redis_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    serve(redis_url, EXAMPLES[:40])
    serve(redis_url, EXAMPLES[40:50], age_off_by=1.0)
    with caplog.at_level(logging.WARNING):
        report = learn(tmp_path, redis_url)
    assert report is not None
    assert (report["rows"], report["differing_rows"], report["differing"]) == (50, 10, {"age": 10})
    assert report["ages"]["users"] == {"rows": 50, "mean_seconds": 2.0, "most_seconds": 2.0}
    said = [r.getMessage() for r in caplog.records if r.getMessage().startswith("skew")]
    assert said == ["skew: 10 of 50 served rows differ from their example, more than 10%: age in 10"]
    assert REGISTRY.get_sample_value("graft_skew_rows", {"outcome": "differing"}) == 10
    assert REGISTRY.get_sample_value("graft_skew_differing_rows", {"feature": "age"}) == 10


def test_drift_beyond_its_bound_is_logged(
    redis_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(skew_watch, "_WINDOW_EXAMPLES", 128)
    monkeypatch.setattr(skew_watch, "_MOST_DRIFT", 1e-6)
    with caplog.at_level(logging.WARNING):
        report = learn(tmp_path, redis_url)
    assert report is not None
    assert report["rows"] == 0
    assert set(report["drift"]) == {*TOY.spec.dense_names, "user_id", "item_id"}
    assert "drift: of the last 128 examples 6 columns have a population stability index above" in caplog.text


def test_without_redis_the_learner_goes_on_and_says_so_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    report = learn(tmp_path, NO_REDIS)
    assert report is not None
    assert report["rows"] == 0
    assert caplog.text.count("what serving saw is not compared meanwhile") == 1
    assert Registry(tmp_path).load_manifest(str(Registry(tmp_path).latest())).examples == len(EXAMPLES)


def test_what_is_learnt_has_the_same_bits(redis_url: str, tmp_path: Path, equal: Callable[..., None]) -> None:
    serve(redis_url, EXAMPLES, age_off_by=5.0)
    learn(tmp_path / "compared", redis_url)
    learn_in_memory(TOY, Registry(tmp_path / "alone"), EXAMPLES)
    (_, compared, _), (_, alone, _) = (
        Registry(tmp_path / name).load_learner(str(Registry(tmp_path / name).latest()))
        for name in ("compared", "alone")
    )
    equal(compared, alone)
