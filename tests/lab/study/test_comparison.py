"""Differences between models with intervals over the users, on predictions that are made up."""

import numpy as np
import pytest
from numpy.typing import NDArray

from lab.study.findings.comparison import Comparison, Difference, UserBootstrap, student_of
from lab.study.findings.findings import Findings, Series
from lab.study.grid import Grid, Variant
from lab.study.learners.cell import Predictions, Result
from lab.study.log.study_log import StudyLog
from stream.log.examples import ExampleRecord
from stream.tasks import TaskSpec
from student.evaluate.arms import CONTROL
from student.evaluate.metrics import exact_auc
from tests.lab.study.conftest import Pair

ROWS, USERS = 2_000, 100
TASK = TaskSpec(name="click", kind="binary", window_seconds=1)
AS_INPUT = Variant(name="as_input", teacher_as_input=True, without=["*"])
GRID = Grid(seeds=1, baseline="base", windows=[0, 1_000], variants=[Variant(name="base"), AS_INPUT])
RANDOM = np.random.default_rng(5)
TRUTH_N = RANDOM.normal(size=ROWS)
LABEL_N = (RANDOM.random(ROWS) < 1 / (1 + np.exp(-2 * TRUTH_N))).astype(np.float32)
NOISE_3N = RANDOM.normal(size=(3, ROWS))


def value(noise: float, of: int = 0) -> NDArray[np.float32]:
    """A prediction: the truth, and so much noise; the same noise for the same `of`."""
    return (TRUTH_N + noise * NOISE_3N[of]).astype(np.float32)


def log(pair: Pair, users: int = USERS) -> StudyLog:
    first = pair.log.records[0].example
    examples = [first.model_copy(update={"user_id": f"u{n % users}", "item_id": n % 50}) for n in range(ROWS)]
    return StudyLog(pair.spec, [ExampleRecord(0, n, example) for n, example in enumerate(examples)])


def test_the_interval_is_of_draws_of_users_and_pairs_both_sides(pair: Pair) -> None:
    """Noise that both share is no doubt about their difference; the interval of each alone is far wider."""
    bootstrap = UserBootstrap([f"u{n % USERS}" for n in range(ROWS)])
    everyone = np.ones(ROWS, np.bool_)
    a_R, b_R = (bootstrap.scores("binary", LABEL_N, value(noise), everyone) for noise in (0.50, 0.52))
    assert len(a_R) == 201
    assert a_R[0] == pytest.approx(exact_auc(LABEL_N, value(0.5)))
    assert np.std((a_R - b_R)[1:]) < 0.2 * np.std(a_R[1:])
    # Users as blocks: with one row a user this is the usual error of an AUC (Hanley & McNeil 1982), about .009 here.
    alone = UserBootstrap(list(range(ROWS))).scores("binary", LABEL_N, value(0.5), everyone)
    assert np.std(alone[1:]) == pytest.approx(0.009, abs=0.003)


def test_ties_count_half_in_every_draw() -> None:
    bootstrap = UserBootstrap(list(range(ROWS)))
    score_R = bootstrap.scores("binary", LABEL_N, np.zeros(ROWS, np.float32), np.ones(ROWS, np.bool_))
    assert score_R == pytest.approx(0.5)


def test_a_difference_says_which_side_is_better_only_where_its_interval_holds_no_zero() -> None:
    assert [Difference(0.1, low, high).sign for low, high in ((0.05, 0.15), (-0.05, 0.25), (None, None))] == [1, 0, 0]
    assert Difference(0.1, 0.05, 0.15).text() == "+0.1000 [+0.0500, +0.1500]"


def test_a_series_without_predictions_has_no_score(pair: Pair) -> None:
    findings = Findings(GRID, [TASK], [], {})
    comparison = Comparison(findings, log(pair), lambda _name, _seed: None)
    series = Series("student", "base", "student")
    assert comparison.score(series, "all", TASK, served=False) is None
    assert comparison.difference(series, series, "all", TASK, served=False) is None


def test_a_variant_that_learnt_fewer_examples_than_the_baseline_is_not_compared(pair: Pair) -> None:
    def of_cell(name: str, seed: int) -> Predictions | None:
        rows = ROWS if name == "base" else ROWS // 2
        value_NKA = np.stack([value(noise)[:rows] for noise in (0.3, 1.5, 2, 9)], axis=1)[:, None, :]
        return Predictions(LABEL_N[:rows, None], value_NKA, value_NKA) if seed == 1 else None

    result = Result(variant="base", seed=1, examples=ROWS, steps=1, bootstrap_steps=0, scores={})
    findings = Findings(GRID, [TASK], [result], {})
    comparison = Comparison(findings, log(pair), of_cell)
    shorter = Series("teacher as input", "as_input", CONTROL)
    assert comparison.score(shorter, "all", TASK, served=False) is None
    assert comparison.difference(student_of(findings), shorter, "all", TASK, served=False) is None
