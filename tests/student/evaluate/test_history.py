"""The Parquet history goes on where the version stands."""

from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest

from student.evaluate.history import MetricsHistory, Point, read_history
from student.learn.learner import Learner
from student.versions.manifest import Metrics


@pytest.fixture
def slices(toy: Any) -> dict[str, Metrics]:
    learned: dict[str, Metrics] = toy.learnt(Learner(toy.setup()), toy.batches(8)).evaluation.slices()
    return learned


def test_what_is_written_is_read_back(slices: dict[str, Metrics], tmp_path: Path) -> None:
    history = MetricsHistory(tmp_path, 0)
    history.add(504, slices)
    history.add(1000, slices)
    assert read_history(tmp_path) == []
    history.flush()
    history.add(1504, slices)
    history.flush()
    history.flush()
    assert read_history(tmp_path) == [Point(n, slices) for n in (504, 1000, 1504)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000000001000.parquet", "000000001504.parquet"]


def test_a_row_is_one_value_and_what_is_undefined_has_none(slices: dict[str, Metrics], tmp_path: Path) -> None:
    history = MetricsHistory(tmp_path, 0)
    history.add(504, slices)
    history.flush()
    rows = pq.read_table(tmp_path / "000000000504.parquet").to_pylist()
    assert list(rows[0]) == ["examples", "time", "task", "arm", "slice", "metric", "value"]
    student = {
        r["metric"]: r["value"] for r in rows if (r["task"], r["arm"], r["slice"]) == ("rating", "student", "whole")
    }
    assert student == slices["whole"]["rating"]["student"].model_dump(exclude_none=True)
    assert set(student) == {"count", "label_mean", "prediction_mean", "rmse", "r2"}


def test_a_restart_drops_what_lies_beyond_its_version(slices: dict[str, Metrics], tmp_path: Path) -> None:
    history = MetricsHistory(tmp_path, 0)
    for examples in (504, 1000, 1504):
        history.add(examples, slices)
        history.flush()
    (tmp_path / ".000000002000.parquet.4711.partial").write_bytes(b"cut")
    assert len(pd.read_parquet(tmp_path)) > 0
    restarted = MetricsHistory(tmp_path, 1008)
    assert [point.examples for point in read_history(tmp_path)] == [504, 1000]
    restarted.add(1512, slices)
    restarted.flush()
    assert [point.examples for point in read_history(tmp_path)] == [504, 1000, 1512]
    assert not list(tmp_path.glob(".*"))


def test_no_history_has_no_points(tmp_path: Path) -> None:
    assert read_history(tmp_path / "none") == []
