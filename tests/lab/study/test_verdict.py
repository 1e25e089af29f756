"""What a study says in words, on predictions that are made up."""

import numpy as np
import pytest
from numpy.typing import NDArray

from lab.study.cell import Predictions, Result
from lab.study.comparison import Comparison, Difference, student_of
from lab.study.findings import Findings, Series
from lab.study.grid import PLAIN_VARIANT, Grid, Variant
from lab.study.study_log import StudyLog
from lab.study.user_bootstrap import UserBootstrap
from lab.study.verdict import verdict
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


def said(
    pair: Pair,
    *,
    student: NDArray[np.float32],
    control: NDArray[np.float32],
    teacher: NDArray[np.float32],
    lr_teacher: NDArray[np.float32],
    as_input: NDArray[np.float32] | None = None,
    task: TaskSpec = TASK,
    users: int = USERS,
) -> list[str]:
    """The verdict; the other plain models, and the teacher as an input where it is not given, are far behind."""
    nothing, far = np.full(ROWS, np.nan, np.float32), value(9)
    arms = {
        "base": [student, control, teacher, nothing],
        "as_input": [far, far if as_input is None else as_input, teacher, nothing],
        PLAIN_VARIANT: [far, lr_teacher, far, nothing],
    }
    label_NK = (LABEL_N if task.kind == "binary" else TRUTH_N.astype(np.float32))[:, None]
    kept = {
        name: Predictions(label_NK, np.stack(values, axis=1)[:, None, :], np.stack(values, axis=1)[:, None, :])
        for name, values in arms.items()
    }
    result = Result(variant="base", seed=1, examples=ROWS, steps=1, bootstrap_steps=0, scores={})
    findings = Findings(GRID, [task], [result], {})
    return verdict(Comparison(findings, log(pair, users), lambda name, seed: kept[name] if seed == 1 else None))


def test_a_student_that_is_best_is_named_with_the_next_and_by_how_much(pair: Pair) -> None:
    lines = said(pair, student=value(0.3), control=value(1.5), teacher=value(2, 1), lr_teacher=value(0.8))
    assert lines[0] == "Intervals hold 95 % of 200 draws of the log's 100 users with replacement."
    ours, theirs = (exact_auc(LABEL_N, value(noise)) or 0.0 for noise in (0.3, 0.8))
    assert lines[1].startswith(
        "`click`, row by row: the student is best, better than the regression with the teacher's logits, the next, by "
        f"{ours - theirs:.4f} [0."
    )
    assert f"AUC {ours:.4f} for the student, {theirs:.4f} for the other. By part of the log: from +0." in lines[1]
    assert lines[2].startswith("`click`, row by row: the teacher helps: student - control = +0.")
    assert lines[3].startswith("`click`, served: the student is best")
    assert lines[-1] == "What to change: nothing that these numbers show."


def test_a_regression_that_is_better_is_said_to_be_and_what_to_look_at(pair: Pair) -> None:
    lines = said(pair, student=value(1.0), control=value(2), teacher=value(2, 1), lr_teacher=value(0.2))
    assert "the regression with the teacher's logits is best, better than the student by 0." in lines[1]
    assert "What to change (`click`, row by row; `click`, served): a plain regression is better." in lines[-1]


def test_a_permuted_teacher_does_not_help_and_what_to_do_is_said(pair: Pair) -> None:
    """Its logits belong to other rows: nothing in them orders these."""
    permuted = value(0, 2)[np.random.default_rng(1).permutation(ROWS)]
    lines = said(pair, student=value(0.5), control=value(0.5), teacher=permuted, lr_teacher=value(0.9))
    assert lines[2].startswith("`click`, row by row: the teacher does not help: student - control = +0.0000")
    assert "The teacher's own AUC is 0." in lines[-1]
    assert "does not order these rows. Are teacher.inputs right ('graft check'" in lines[-1]
    assert "remove the [[distillation]] tables" in lines[-1]


def test_a_teacher_that_harms_is_said_to(pair: Pair) -> None:
    lines = said(pair, student=value(1.0), control=value(0.5), teacher=-value(1, 1), lr_teacher=value(2))
    assert "the control is best, better than the student by 0." in lines[1]
    assert "the teacher does harm: student - control = -0." in lines[2]
    assert "below chance: is its logit one of the opposite?" in lines[-1]


def test_a_teacher_that_does_not_reach_the_student_is_another_case(pair: Pair) -> None:
    """It alone is better than both arms, which are the same: there is something to learn that is not learnt."""
    lines = said(pair, student=value(1.0), control=value(1.0), teacher=value(0.3, 1), lr_teacher=value(1.5))
    assert "the teacher alone is best, better than the student by 0." in lines[1]
    assert "what the teacher knows does not reach the student. Begin with 'graft student bootstrap'" in lines[-1]


def test_a_teacher_that_helps_and_is_better_alone_is_told_from_one_that_does_not_reach_the_student(pair: Pair) -> None:
    lines = said(pair, student=value(1.0), control=value(3), teacher=value(0.3, 1), lr_teacher=value(1.5))
    assert lines[2].startswith("`click`, row by row: the teacher helps: student - control = +0.")
    assert lines[-1].startswith(
        "What to change (`click`, row by row; `click`, served): the teacher helps, but alone it is better than the "
        "student: labels that are few or late"
    )
    assert "Add [[features.profiles]] of user and item, and begin with 'graft student bootstrap'" in lines[-1]


def test_a_teacher_that_is_better_as_an_input_is_another_case_and_whether_it_helps_is_said(pair: Pair) -> None:
    better = {"teacher": value(2, 1), "lr_teacher": value(1.5), "as_input": value(0.3)}
    for control, start in ((value(3), "the teacher helps, but the teacher"), (value(1.0), "the teacher")):
        lines = said(pair, student=value(1.0), control=control, **better)
        (told,) = [line for line in lines if "as an input is better, so not all" in line]
        assert told.startswith(f"What to change (`click`, row by row; `click`, served): {start} as an input is better")
        assert "unshown.ratio = 1" in told
        assert not any("alone it is better" in line for line in lines)


def test_what_does_not_differ_for_certain_is_not_called_better(pair: Pair) -> None:
    lines = said(pair, student=value(1.0), control=value(3), teacher=value(3, 1), lr_teacher=value(1.0, 2))
    assert "the student and the regression with the teacher's logits, the best of the others, do not differ" in lines[1]


def test_few_users_have_no_interval(pair: Pair) -> None:
    lines = said(pair, student=value(0.3), control=value(2), teacher=value(2, 1), lr_teacher=value(0.8), users=19)
    assert lines[0] == "No intervals: they come from draws of at least 20 users, the log has 19."
    assert "[" not in "".join(lines[1:5])
    assert "the teacher seems to help" in lines[2]


def test_of_a_regression_less_is_better(pair: Pair) -> None:
    task = TaskSpec(name="dwell", kind="regression", window_seconds=1)
    lines = said(pair, student=value(0.3), control=value(1.5), teacher=value(2, 1), lr_teacher=value(0.8), task=task)
    assert lines[1].startswith("`dwell`, row by row: the student is best, better than the regression with")
    assert "RMSE 0." in lines[1]


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
    turned = Difference(-0.1, -0.15, -0.05).reversed()
    assert (turned, turned.text()) == (Difference(0.1, 0.05, 0.15), "+0.1000 [+0.0500, +0.1500]")


def test_a_series_without_predictions_has_no_score(pair: Pair) -> None:
    findings = Findings(GRID, [TASK], [], {})
    comparison = Comparison(findings, log(pair), lambda _name, _seed: None)
    series = Series("student", "base", "student")
    assert comparison.score(series, "all", TASK, served=False) is None
    assert comparison.difference(series, series, "all", TASK, served=False) is None


def test_what_the_teacher_gives_is_said_by_the_share_of_the_users(pair: Pair) -> None:
    def result(variant: str, draw: int, share: float, **scores: float) -> Result:
        served = {"all": {"click": scores}}
        return Result(
            variant=variant, seed=draw, share=share, examples=9, steps=1, bootstrap_steps=0, scores={}, served=served
        )

    draws = [result("base", draw, 0.1, student=0.75, control=0.625) for draw in range(1, 6)]
    plain = [result(PLAIN_VARIANT, draw, 0.1, lr_teacher=0.875) for draw in range(1, 6)]
    whole = [result("base", 1, 1.0, student=0.75, control=0.6875), result(PLAIN_VARIANT, 1, 1.0, lr_teacher=0.5)]
    findings = Findings(GRID.model_copy(update={"thin": [0.1]}), [TASK], [*draws, *plain, *whole], {})
    lines = verdict(Comparison(findings, log(pair), lambda _name, _seed: None))
    start = "`click`, served, the student better than"
    assert lines[1:3] == [
        f"{start} the control by the share of the users: 10 % +0.1250 [+0.1250, +0.1250] over 5 seeds, 100 % +0.0625.",
        (
            f"{start} the regression with the teacher's logits by the share of the users: "
            "10 % -0.1250 [-0.1250, -0.1250] over 5 seeds, 100 % +0.2500."
        ),
    ]


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
    assert "teacher as an input" not in "".join(verdict(comparison))
