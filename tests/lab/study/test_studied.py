"""A study with its own worker processes, of the grid that the demo compares."""

from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
import pytest

from lab.study.grid import TeacherChange, load_grid
from lab.study.learners.plain_models import PLAIN_MODELS, PlainModels
from lab.study.learners.plan import window_seconds
from lab.study.learners.teachers import kept_logits
from lab.study.learners.worker import FILE
from lab.study.log.log_in_memory import recounted
from lab.study.log.study_log import Arriving, StudyLog, known_after, write_log
from lab.study.report import model_scores
from lab.study.studied import studied
from student.evaluate.metrics import exact_auc
from tests.lab.study.conftest import Pair, no_progress

COUNT = 600


@pytest.mark.timeout(240)  # four learners, each a process that imports torch
def test_the_models_are_scored_row_by_row_and_served_on_the_very_examples(
    pair: Pair, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    log, out = _with_a_far_value(pair.log.first(COUNT)), tmp_path / "out"
    write_log(tmp_path / "log", log.records)
    with as_file(files("lab.demo") / "study.toml") as path:
        grid = load_grid(str(path))
    study = studied(grid, pair.project, pair.spec, tmp_path / "log", out=out, jobs=2, advance=no_progress)
    assert study.findings.examples() == COUNT

    # 1. The plain models' own code on the same rows says the same, in both ways.
    setup = pair.project.learner_setup(pair.spec)
    logit_NT = kept_logits(tmp_path / "logits.npz", TeacherChange(), pair.project, log)
    known_N = known_after(max(grid.label_delay_seconds, window_seconds(pair.project)), log.event_times_ms)
    come = recounted(log, pair.project.features.aggregates, pair.day_zero.sources.pushed, known_N)
    come_NT = kept_logits(tmp_path / "come.npz", TeacherChange(), pair.project, come)
    plain = PlainModels(setup, log, logit_NT, Arriving(come, come_NT, known_N))
    plain.learn_until(COUNT)
    (label_NK, seen_NKA), served_NKA = plain.seen(), plain.served()
    assert not np.array_equal(seen_NKA, served_NKA)
    k = next(k for k, task in enumerate(setup.tasks) if task.kind == "binary")
    scores = model_scores(study.comparison)[setup.tasks[k].name]
    for a, name in enumerate(PLAIN_MODELS):
        assert scores[name].row_by_row.score == pytest.approx(exact_auc(label_NK[:, k], seen_NKA[:, k, a]))
        assert scores[name].served.score == pytest.approx(exact_auc(label_NK[:, k], served_NKA[:, k, a]))
    # 2. How much better the student is is the difference of the scores, and lies in its interval.
    for name, ways in scores.items():
        for way, student in ((ways.row_by_row, scores["student"].row_by_row), (ways.served, scores["student"].served)):
            assert way.score is not None
            assert student.score is not None
            if name != "student":
                assert way.student_better is not None
                assert way.student_better.mean == pytest.approx(student.score - way.score)
                assert way.student_better.low is not None
                assert way.student_better.high is not None
                assert way.student_better.low <= way.student_better.high
    assert scores["student"].row_by_row.student_better is None
    # 3. What each learner leaves out is in one file, with the learner's name, and not in the terminal.
    lines = [line.partition(" WARNING ")[2] for line in (out / FILE).read_text().splitlines()]
    assert [line.partition("; it must be in")[0] for line in sorted(lines)] == [
        f"variant {name}, 100 % of the users, seed {seed}: feature listener:age: 999 is left out"
        for name, seeds in (("permuted", 1), ("student", 5), ("teacher_as_input", 1))
        for seed in range(1, seeds + 1)
    ]
    captured = capfd.readouterr()
    assert "left out" not in captured.out + captured.err


def _with_a_far_value(log: StudyLog) -> StudyLog:
    """The same log, but for a listener of 999 years."""
    records, place = list(log.records), [feature.name for feature in log.spec.features].index("listener:age")
    features = list(records[300].example.features)
    features[place] = 999
    records[300] = records[300]._replace(example=records[300].example.model_copy(update={"features": features}))
    return log._replace(records=records)
