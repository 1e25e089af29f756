"""What the learner tells of itself: points, lines at powers of two, gauges."""

import logging
from pathlib import Path
from typing import Any

import prometheus_client
import pytest

from student.evaluate.evaluation import ProgressiveEvaluation
from student.evaluate.history import Progress, progress_lines, read_history, set_gauges
from student.learn.learner import Learner
from student.versions.manifest import ArmMetrics


@pytest.fixture
def evaluation(toy: Any) -> ProgressiveEvaluation:
    learned: ProgressiveEvaluation = toy.learnt(Learner(toy.setup()), toy.batches(63)).evaluation
    return learned


def test_a_point_stands_at_each_first_step_past_500(evaluation: ProgressiveEvaluation, tmp_path: Path) -> None:
    progress = Progress(tmp_path, 0, [evaluation])
    for count in (499, 500, 501, 999, 1004, 1010, 2600):
        progress.update(count)
    progress.publish()
    assert [point.examples for point in read_history(tmp_path)] == [500, 1004, 2600]


def test_a_restart_tells_of_nothing_twice(
    evaluation: ProgressiveEvaluation, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    progress = Progress(tmp_path, 1024, [evaluation])
    with caplog.at_level(logging.INFO, "student.evaluate.history"):
        progress.update(1040)
    progress.publish()
    assert read_history(tmp_path) == []
    assert not caplog.messages


def test_a_point_has_every_slice_and_arm(evaluation: ProgressiveEvaluation, tmp_path: Path) -> None:
    progress = Progress(tmp_path, 0, [evaluation])
    progress.update(504)
    published = progress.publish()
    (point,) = read_history(tmp_path)
    assert set(point.slices) == {"whole", "recent", "new_items", "new_users"}
    assert set(point.slices["whole"]["like"]) == {"student", "control", "teacher", "item_mean"}
    assert point.slices["whole"]["like"]["student"].count == 504
    assert point.slices == published


def test_lines_stand_at_each_first_step_past_a_power_of_two(
    evaluation: ProgressiveEvaluation, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    progress = Progress(tmp_path, 0, [evaluation])
    with caplog.at_level(logging.INFO, "student.evaluate.history"):
        for count in range(16, 160, 16):
            progress.update(count)
    told = [line.split()[1] for line in caplog.messages if "task=like" in line]
    assert told == ["examples=16", "examples=32", "examples=64", "examples=128"]


def test_a_line_has_the_loss_since_the_line_before() -> None:
    before = {
        "like": {"student": ArmMetrics(count=100, positives=40, label_mean=0.4, prediction_mean=0.5, log_loss=0.7)}
    }
    student = ArmMetrics(count=200, positives=90, label_mean=0.45, prediction_mean=0.5, log_loss=0.6, auc=0.71234)
    control = ArmMetrics(count=200, positives=90, label_mean=0.45, prediction_mean=0.44, log_loss=0.65)
    rating = ArmMetrics(count=5, label_mean=3.25, prediction_mean=3.5, rmse=1.5, r2=0.1)
    now = {"like": {"student": student, "control": control}, "rating": {"student": rating}, "love": {}}
    assert list(progress_lines(256, before, now)) == [
        "progress examples=256 task=like label=0.45 student=0.5/0.6/0.5/0.7123 control=0.65/0.65/0.44/-",
        "progress examples=256 task=rating label=3.25 student=2.25/2.25/3.5",
    ]
    assert "student=-/0.6/0.5/0.7123" in next(progress_lines(512, now, now))


def test_gauges_have_every_metric_of_every_slice_task_and_arm(evaluation: ProgressiveEvaluation) -> None:
    slices = evaluation.slices()
    set_gauges(slices)

    def gauge(metric: str, place: str, task: str, arm: str) -> float | None:
        labels = {"metric": metric, "slice": place, "task": task, "arm": arm}
        return prometheus_client.REGISTRY.get_sample_value("graft_student_progressive_metric", labels)

    for place in ("whole", "recent", "new_items", "new_users"):
        for task in ("like", "hidden", "rating"):
            for arm in ("student", "control", "teacher", "item_mean"):
                metrics = slices[place][task].get(arm)
                for metric, value in metrics or ():
                    assert gauge(metric, place, task, arm) == value
                assert (gauge("count", place, task, arm) is None) == (metrics is None)
    assert gauge("auc", "recent", "like", "teacher") == slices["recent"]["like"]["teacher"].auc is not None
    assert gauge("count", "whole", "hidden", "teacher") is None  # no teacher task stands for it
    assert gauge("r2", "whole", "like", "student") is None


def test_after_a_restart_the_first_line_has_the_loss_since_then(
    evaluation: ProgressiveEvaluation, toy: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "student.evaluate.history"):
        progress = Progress(tmp_path, 504, [evaluation])
        progress.update(512)
    assert "loss since the line before or this start/" in caplog.messages[0]
    assert "student=-/" in caplog.messages[1]  # no example since then
