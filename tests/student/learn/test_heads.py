"""What a head learns: its unit, its loss by its settings, and how much of the teacher it explains."""

from math import log
from typing import Any

import numpy as np
import pytest

from student.learn.config import DistillationConfig
from student.learn.network.heads import Lesson, Loss, Singles, TeacherHead, Unit, slopes

NAN = float("nan")
LOGITS = Unit("binary", 0.0, 1.0)


def singles(values: Any) -> Singles:
    return np.array(values, np.float32)


def head(unit: Unit, weight: float = 1.0) -> TeacherHead:
    return TeacherHead(DistillationConfig(teacher_task="like", student_task="like"), 0, 0, unit, weight)


def slope_of(one: TeacherHead, value_B: Singles, teacher_B: Singles) -> Singles:
    """Of its loss in the head's values, as a step takes it."""
    return slopes(value_B[:, None], [(one.lesson(), teacher_B)], np.ones_like(value_B))[:, 0]


def test_a_label_is_learnt_in_the_heads_unit() -> None:
    # Binary: the offset is part of the logit, sigmoid(ln 3) - 1. Regression: 2 (3 - (5 - 4) / 2)
    for unit, value, label, slope in (
        (Unit("binary", log(3), 1.0), 0.0, 1.0, -1 / 4),
        (Unit("regression", 4, 2), 3, 5, 5),
    ):
        lesson = Lesson.of_label(0, unit)
        found = slopes(singles([[value]]), [(lesson, singles([label]))], singles([1]))
        assert found.tolist() == [[pytest.approx(slope)]]


def test_the_slopes_of_all_that_a_value_learns_are_summed() -> None:
    lessons = [(Lesson.of_label(place, LOGITS), singles([label])) for place, label in ((1, 1.0), (0, 0.0), (1, 1.0))]
    square = Lesson.of_label(1, Unit("regression", 0.0, 1.0)), singles([0.25])
    assert slopes(singles([[0.0, 0.0]]), [square, *lessons], singles([1])).tolist() == [[0.5, -1.5]]


def test_a_label_counts_for_as_many_as_it_stands_for_and_the_teacher_once() -> None:
    label_B, teacher_B = singles([1.0, 0.0]), singles([1.0, 0.0])
    of_label, of_teacher = Lesson.of_label(0, LOGITS), Lesson(1, Unit("regression", 0.0, 1.0), Loss.SQUARE)
    found = slopes(singles([[0.0, 0.0]] * 2), [(of_label, label_B), (of_teacher, teacher_B)], singles([1, 4]))
    # sigmoid(0) - label over 5 labels, four of them the second row's; 2 (0 - value) over 2 rows
    assert found.tolist() == [[pytest.approx(-0.5 / 5), -1.0], [pytest.approx(4 * 0.5 / 5), 0.0]]


@pytest.mark.parametrize("present", [0, 1, 2])
def test_a_missing_logit_gives_no_slope_and_no_nan(present: int) -> None:
    teacher_B = singles([1.0, -0.5, 0.3][:present] + [NAN] * (3 - present))
    slope_B = slope_of(head(Unit("binary", 0.2, 1.0)), singles([0.5, 7.0, -1.0]), teacher_B)
    assert np.isfinite(slope_B).all()
    assert not slope_B[present:].any()


def test_every_slope_is_finite_for_extreme_logits() -> None:
    assert np.isfinite(slope_of(head(LOGITS), singles([500.0, -500.0]), singles([-500.0, 500.0]))).all()


def test_a_regression_learns_the_teachers_value_in_deviations_times_the_weight() -> None:
    # Twice the difference of 1 and (3 - 4) / 2, half as much
    slope_B = slope_of(head(Unit("regression", 4.0, 2.0), 0.5), singles([1.0]), singles([3.0]))
    assert slope_B.tolist() == [pytest.approx(1.5)]


def test_a_head_explains_the_share_of_the_teachers_variance_that_is_not_left() -> None:
    # Targets 1, 3 (mean 2, spread 2), the third has no teacher; values 1, 2 leave 0 + 1: one half
    explained = head(Unit("regression", 0.0, 1.0)).explained(singles([1.0, 2.0, 9.0]), singles([1.0, 3.0, NAN]))
    assert explained == pytest.approx(0.5)
    # Binary: of probabilities; 3/4 and 1/4, the head says 1/2 of both: nothing
    assert head(LOGITS).explained(singles([0.0, 0.0]), singles([log(3), -log(3)])) == pytest.approx(0.0)


@pytest.mark.parametrize("teacher", [[NAN, NAN], [1.0, NAN], [1.0, 1.0]])
def test_a_teacher_that_does_not_vary_is_not_explained(teacher: list[float]) -> None:
    assert head(LOGITS).explained(singles([0.0, 1.0]), singles(teacher)) == 0.0


def test_what_varies_by_rounding_alone_is_not_explained_however_near_the_values_are() -> None:
    """A head that hits a constant within its rounding had explained 100 % of it."""
    teacher_B = singles([3.7, 3.7000003, 3.7, 3.7000003])
    assert head(Unit("regression", 0.0, 1.0)).explained(teacher_B.copy(), teacher_B) == 0.0
    assert head(Unit("regression", 0.0, 1.0)).explained(1000 * teacher_B, 1000 * teacher_B) == 0.0
    wide_B = singles([3.7, 3.701, 3.7, 3.701])
    assert head(Unit("regression", 0.0, 1.0)).explained(wide_B.copy(), wide_B) == pytest.approx(1.0)
