"""progress.jsonl goes on where the version stands."""

import json
from pathlib import Path
from typing import Any

from student.learner import Learner
from student.progress import ProgressLog


def examples(path: Path) -> list[int]:
    return [json.loads(line)["examples"] for line in path.read_text().splitlines()]


def test_a_line_stands_at_each_first_step_past_500(toy: Any, tmp_path: Path) -> None:
    path = tmp_path / "progress.jsonl"
    log, evaluation = ProgressLog(path, 0), Learner(toy.setup()).evaluation
    for count in (499, 500, 501, 999, 1004, 1010, 2600):
        log.update(count, evaluation)
    assert examples(path) == [500, 1004, 2600]


def test_a_line_has_the_metrics_of_every_arm(toy: Any, tmp_path: Path) -> None:
    learner = toy.learnt(Learner(toy.setup()), toy.batches(63))
    path = tmp_path / "progress.jsonl"
    ProgressLog(path, 0).update(504, learner.evaluation)
    line = json.loads(path.read_text())
    assert set(line["metrics"]["like"]) == {"student", "control", "teacher", "item_mean"}
    assert line["metrics"]["like"]["student"]["count"] == 504
    assert set(line["recent"]["rating"]["control"]) == {"count", "auc", "log_loss", "rmse"}


def test_lines_beyond_the_version_and_half_lines_are_dropped(toy: Any, tmp_path: Path) -> None:
    path = tmp_path / "progress.jsonl"
    path.write_text("".join(json.dumps({"examples": n}) + "\n" for n in (500, 1000, 1500)) + '{"examples": 20')
    log = ProgressLog(path, 1008)
    assert examples(path) == [500, 1000]
    log.update(1500, Learner(toy.setup()).evaluation)
    assert examples(path) == [500, 1000, 1500]
