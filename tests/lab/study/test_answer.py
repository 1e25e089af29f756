"""What a study answers in words, on predictions that are made up: five seeds of every arm, a hundred users."""

import re
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from lab.study.findings.answer import answer
from lab.study.findings.comparison import Claim, Comparison, Difference, claim_of
from lab.study.findings.findings import Findings, Interval
from lab.study.grid import PLAIN_VARIANT, Grid, TeacherChange, Variant
from lab.study.learners.cell import Predictions, Result
from lab.study.learners.plain_models import PLAIN_MODELS
from lab.study.learners.teachers import InputUse
from lab.study.log.study_log import of_slices, slices_of
from stream.tasks import TaskSpec
from student.evaluate.arms import ARMS
from student.evaluate.metrics import exact_auc
from tests.lab.study.conftest import Pair
from tests.lab.study.test_comparison import LABEL_N, ROWS, TASK, TRUTH_N, USERS, log, value

Values = NDArray[np.float32]
FAR = value(9)
PLAIN = "Against the best plain model of `click`: served,"
DWELL = TaskSpec(name="dwell", kind="regression", window_seconds=1)


def told(
    pair: Pair,
    *,
    student: Values,
    control: Values,
    regression: Values = FAR,
    teacher: Values = FAR,
    seeds: int = 5,
    users: int = USERS,
    task: TaskSpec = TASK,
    has_teacher: bool = True,
    without: Mapping[str, Values] | None = None,
    inputs: Sequence[InputUse] = (),
    thin: Mapping[str, float] | None = None,
) -> list[str]:
    """The answer. `without`: by input the student of a teacher that has its default there. `thin`: of 30 % of users."""
    variants = {f"without_{name}": values for name, values in (without or {}).items()}
    grid = Grid(
        seeds=seeds,
        baseline="base",
        windows=[0, 700, 1_400, ROWS],
        thin=[0.3] if thin else [],
        variants=[
            Variant(name="base"),
            *(Variant(name=f"without_{name}", teacher=TeacherChange(defaulted=[name])) for name in without or {}),
        ],
    )
    nothing, examples = np.full(ROWS, np.nan, np.float32), log(pair, users)
    label_NK = (LABEL_N if task.kind == "binary" else TRUTH_N.astype(np.float32))[:, None]
    members = slices_of(examples.new_ids(), grid.windows)
    kept: dict[tuple[str, int], Predictions] = {}
    results = []

    def learn(variant: str, seed: int, names: Sequence[str], values: Sequence[Values]) -> None:
        value_NKA = np.stack(values, axis=1)[:, None, :]
        scores = of_slices(members, [task], names, label_NK, value_NKA)
        kept[variant, seed] = Predictions(label_NK, value_NKA, value_NKA)
        how = {"variant": variant, "seed": seed, "examples": ROWS, "steps": 1, "bootstrap_steps": 0}
        results.append(Result(**how, scores=scores, served=scores))

    for seed in range(1, seeds + 1):
        shaken = np.random.default_rng(seed).normal(scale=1e-3, size=ROWS).astype(np.float32)
        learn("base", seed, ARMS, [student + shaken, control + shaken, teacher, nothing])
        for name, values in variants.items():
            learn(name, seed, ARMS, [values + shaken, control, FAR, nothing])
    learn(PLAIN_VARIANT, 1, PLAIN_MODELS, [regression, FAR, FAR, nothing])
    for draw in range(1, 6 if thin else 1):
        how = {"variant": "base", "seed": draw, "share": 0.3, "examples": 600, "steps": 1, "bootstrap_steps": 0}
        results.append(Result(**how, scores={}, served={"all": {task.name: dict(thin or {})}}))
    findings = Findings(grid, [task], results, {}, has_teacher=has_teacher)
    return answer(Comparison(findings, examples, lambda name, seed: kept.get((name, seed))), inputs)


def test_a_teacher_that_helps_is_said_to_by_how_much_and_whom(pair: Pair) -> None:
    lines = told(pair, student=value(0.5), control=value(1.5), regression=value(1.0))
    ours, theirs = (exact_auc(LABEL_N, value(noise)) or 0.0 for noise in (0.5, 1.5))
    start = f"The teacher helps `click`. Served, the student's AUC is {ours:.4f} with it and {theirs:.4f} without:"
    assert lines[0].startswith(f"{start} better by +{ours - theirs:.4f} [+0.")
    assert f"Row by row: {ours:.4f} and {theirs:.4f}, +" in lines[0]
    assert lines[1].startswith("For whom, served: it helps for new users (+0.")
    assert "new items (+0." in lines[1]
    assert "the first 500 events (+0." in lines[1]
    assert lines[2].startswith(f"{PLAIN} the student is better than the regression (AUC 0.")
    assert lines[3].startswith("As the log goes on the teacher gives, served, +0.")
    assert lines[3].count("on examples") == 3
    assert lines[4].startswith("graft.toml: keep [teacher] and [[distillation]] as they are.")
    assert len(lines) == 5


def test_a_teacher_without_worth_is_said_not_to_help_and_what_to_look_at(pair: Pair) -> None:
    lines = told(pair, student=value(0.5), control=value(0.5))
    assert lines[0].startswith("The teacher does not help `click`. Served,")
    assert "without: a gain of +0.0000 [+0.0000, +0.0000]" in lines[0]
    assert "it does not help for new users (+0.0000" in lines[1]
    assert "if they are right, remove [teacher] and [[distillation]]" in lines[-1]


def test_a_teacher_that_harms_is_said_to(pair: Pair) -> None:
    lines = told(pair, student=value(1.5), control=value(0.5), regression=value(0.5))
    assert lines[0].startswith("The teacher does not help `click`, it does harm. Served,")
    assert "the student is worse than the regression (AUC 0." in lines[2]
    assert any(line.startswith("A plain regression is better.") for line in lines)
    assert "remove [teacher] and [[distillation]]" in lines[-1]


def test_a_teacher_that_is_better_alone_or_orders_nothing_is_said_with_what_to_look_at(pair: Pair) -> None:
    alone = told(pair, student=value(1.0), control=value(1.0), teacher=value(0.3))
    assert alone[-2].startswith("The teacher alone is better than the student: not all that it knows reaches")
    upside_down = told(pair, student=value(1.0), control=value(0.5), teacher=-value(1.0))
    assert upside_down[-2].startswith("The teacher's own AUC is 0.")
    assert "is a logit one of the opposite?" in upside_down[-2]


def test_what_the_intervals_do_not_show_cannot_be_told(pair: Pair) -> None:
    """As much noise of another kind: the difference is chance, and wider than what counts as none."""
    lines = told(pair, student=value(1.0), control=value(1.0, 2))
    assert lines[0].startswith(
        "Whether the teacher helps `click` cannot be told (more events of more users narrow the interval). Served,"
    )
    assert "graft.toml: nothing to change yet" in lines[-1]


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"seeds": 1}, "that needs 5 seeds, 1 was learnt"),
        ({"users": 19}, "an interval needs 20 users, the log has 19"),
    ],
)
def test_one_seed_or_few_users_claim_nothing_and_say_what_it_takes(pair: Pair, more: dict[str, int], why: str) -> None:
    lines = told(pair, student=value(0.5), control=value(1.5), **more)
    assert lines[0].startswith(f"Whether the teacher helps `click` cannot be told ({why}). Served,")
    assert "a gain of +0." in lines[0]  # the number is told all the same


def test_without_a_teacher_the_student_is_judged_against_plain_models_alone(pair: Pair) -> None:
    lines = told(pair, student=value(0.5), control=value(0.5), regression=value(1.0), has_teacher=False)
    assert lines[0].startswith(f"{PLAIN} the student is better than the regression (AUC 0.")
    (last,) = lines[1:]
    assert last.startswith("graft.toml: there is no [teacher], so nothing was compared that stands there.")


def test_of_a_regression_less_is_better(pair: Pair) -> None:
    lines = told(pair, student=value(0.5), control=value(1.5), regression=value(1.0), task=DWELL)
    assert lines[0].startswith("The teacher helps `dwell`. Served, the student's RMSE is 0.5")
    assert "better by +1.0" in lines[0]
    assert "the student is better than the regression (RMSE 0.5" in lines[2]
    same = told(pair, student=value(0.5), control=value(0.5), task=DWELL)
    assert same[0].startswith("The teacher does not help `dwell`. Served,")


def test_a_task_whose_labels_are_all_the_same_is_said_not_to_be_judged(pair: Pair) -> None:
    nothing = np.full(ROWS, np.nan, np.float32)
    lines = told(pair, student=nothing, control=nothing)
    assert lines[0] == "`click` cannot be judged: its labels are all the same, or there are none."
    assert lines[-1].startswith("graft.toml: nothing to change yet")


def test_each_input_is_told_with_what_it_adds_and_a_gap_of_the_map_with_what_it_may_be_worth(pair: Pair) -> None:
    """A third of the rows lack the style: what two thirds gain by it, one third may gain by half of that."""
    without = {"style": value(1.0), "age": value(0.5), "mood": value(0.3)}
    inputs = [
        InputUse("style", 1 / 3),
        InputUse("age", 0.4),
        InputUse("mood", 0.0),
        InputUse("viewer", 1.0),
    ]
    lines = told(pair, student=value(0.5), control=value(1.5), without=without, inputs=inputs)
    adds, gaps = lines[3], lines[4]
    assert adds.startswith("What the teacher's inputs add, served,")
    assert "the student is better with `style` (+0." in adds
    assert "nothing is shown for `age` (+0.0000" in adds
    assert "it is worse with `mood` (-0." in adds
    style = (exact_auc(LABEL_N, value(0.5)) or 0) - (exact_auc(LABEL_N, value(1.0)) or 0)
    (worth,) = re.findall(r"`style` has its default in 33 % of the rows, which may be worth about (\S+) more", gaps)
    assert float(worth) == pytest.approx(style / 2, abs=2e-4)
    assert "`age`" not in gaps  # it adds nothing where it is
    assert gaps.endswith("no feature feeds `viewer`, and what these would add is not known.")
    assert "`teacher.inputs.mood` at its default" in lines[-1]


def test_more_data_is_told_by_the_share_of_the_users(pair: Pair) -> None:
    lines = told(pair, student=value(0.5), control=value(1.5), thin={"student": 0.75, "control": 0.625})
    ours = exact_auc(LABEL_N, value(0.5)) or 0.0
    assert lines[3].startswith(
        f"More data: the student's served AUC is 0.7500 with 30 % of the users (the teacher gives +0.1250); {ours:.3f}"[
            :-1
        ]
    )
    assert "with 100 % of the users" in lines[3]


def _interval(low: float, high: float, seeds: int = 5) -> Interval:
    return Interval((low + high) / 2, low, high, seeds)


@pytest.mark.parametrize(
    ("users", "seeds", "claim"),
    [
        ((0.01, 0.02), _interval(0.01, 0.02), Claim.BETTER),
        ((0.01, 0.02), _interval(-0.01, 0.02), Claim.UNKNOWN),  # other seeds may say otherwise
        ((0.01, 0.02), _interval(0.01, 0.02, seeds=4), Claim.UNKNOWN),
        ((-0.02, -0.01), _interval(-0.02, -0.01), Claim.WORSE),
        ((-0.01, 0.02), _interval(0.01, 0.02), Claim.UNKNOWN),
        ((-0.004, 0.004), _interval(0.001, 0.002), Claim.SAME),
        ((0.001, 0.004), _interval(0.001, 0.004), Claim.SAME),  # for certain, and too small to matter
        ((None, None), _interval(0.01, 0.02), Claim.UNKNOWN),
    ],
)
def test_a_claim_needs_both_intervals_and_a_difference_that_counts(
    users: tuple[float | None, float | None], seeds: Interval, claim: Claim
) -> None:
    assert claim_of(Difference(0.0, *users), seeds, 0.005) is claim
