"""The guard: the student's answer is its own where it predicts better, and its control's where that does."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.tasks import TaskSpec
from student.learn.learner import Learner
from student.learn.posterior.guard import Guard
from student.versions.numpy_model import NumpyStudent
from student.versions.registry import Registry
from student.versions.served_tensors import answer, weight_of
from tests.student.learn.test_learner import draft

TASKS = (
    TaskSpec(name="like", kind="binary", window_seconds=60),
    TaskSpec(name="rating", kind="regression", window_seconds=60),
)
BINARY = np.array([True, False])


def predicted(student: float, control: float, rows: int) -> np.ndarray:
    """The same two values in every row, for both tasks."""
    return np.stack([np.full((rows, 2), student), np.full((rows, 2), control)]).astype(np.float32)


def test_an_arm_that_predicts_better_soon_answers_alone() -> None:
    for student, control, settled in ((2.0, 0.0, 1.0), (0.0, 2.0, 0.0)):
        guard = Guard(TASKS)
        answered = guard.learn(predicted(student, control, 60), np.tile(np.array([1, 2], np.float32), (60, 1)))
        assert guard.weight().tolist() == [settled, settled]
        assert answered[0, -1].tolist() == [2.0, 2.0]
        assert 0 < answered[0, 1, 0] < 2
        assert answered[1].tolist() == [[control, control]] * 60


def test_before_the_first_label_the_student_answers_alone() -> None:
    guard = Guard(TASKS)
    assert guard.answer(predicted(2.0, 0.0, 1))[0].tolist() == [[2.0, 2.0]]
    answered = guard.learn(predicted(2.0, 0.0, 3), np.array([[np.nan, np.nan], [0, np.nan], [0, 2]], np.float32))[0]
    assert [answered[:, 0].tolist().count(2.0), answered[:, 1].tolist().count(2.0)] == [2, 2]


def test_before_the_evidence_of_labels_the_control_counts_for_more() -> None:
    guard = Guard(TASKS)
    guard.learn(predicted(1.0, 1.0, 1), np.array([[1, 1]], np.float32))
    assert guard.weight() == pytest.approx([0.03, 0.03], abs=0.005)


def test_labels_of_other_tasks_are_evidence_that_a_tasks_own_labels_overrule() -> None:
    """Of `rating` there is no label at first, then those of which its control is right."""
    guard = Guard(TASKS)
    of_like = np.tile(np.array([1, np.nan], np.float32), (500, 1))
    guard.learn(predicted(2.0, 0.0, 500), of_like)
    assert guard.weight() == pytest.approx([1.0, 0.924], abs=0.005)
    guard.learn(predicted(2.0, 0.0, 60), np.tile(np.array([np.nan, 0], np.float32), (60, 1)))
    assert guard.weight() == pytest.approx([1.0, 0.004], abs=0.001)


def test_a_teacher_that_is_wrong_for_one_task_may_be_right_for_another() -> None:
    guard, alone = Guard(TASKS), Guard(TASKS)
    of_like, of_rating = np.array([[0, np.nan]], np.float32), np.array([[np.nan, 2]], np.float32)
    guard.learn(predicted(2.0, 0.0, 60), np.tile(of_like, (60, 1)))
    for each in (guard, alone):
        each.learn(predicted(2.0, 0.0, 6), np.tile(of_rating, (6, 1)))
    assert guard.weight()[0] < 0.01
    assert guard.weight()[1] == alone.weight()[1] > 0.5


def test_a_student_that_was_long_worse_answers_soon_after_it_is_better() -> None:
    guard, label = Guard(TASKS), np.array([[1, 2]], np.float32)
    guard.learn(predicted(-1.0, 1.0, 2_000), np.tile(label, (2_000, 1)))
    assert guard.weight().tolist() == [0, 0]
    guard.learn(predicted(2.0, 0.0, 20), np.tile(label, (20, 1)))
    assert guard.weight()[0] == 1


def test_a_student_that_was_long_better_gives_way_soon_after_it_is_worse() -> None:
    """As where the labels turn half way, and the teacher is wrong from there on."""
    guard, label_BK = Guard(TASKS), np.tile(np.array([1, 2], np.float32), (5_000, 1))
    guard.learn(predicted(2.0, 0.0, 5_000), label_BK)
    assert guard.weight().tolist() == [1.0, 1.0]
    guard.learn(predicted(2.0, 0.0, 40), np.zeros_like(label_BK[:40]))
    assert guard.weight().tolist() == [0.0, 0.0]


def test_labels_that_are_missing_are_no_evidence() -> None:
    guard = Guard(TASKS)
    guard.learn(predicted(1.0, 0.5, 1), np.array([[1, 1]], np.float32))
    before = guard.weight().tolist()
    guard.learn(predicted(3.0, -3.0, 10), np.full((10, 2), np.nan, np.float32))
    assert guard.weight().tolist() == before


def test_a_prediction_is_weighted_without_its_own_label() -> None:
    answers = [Guard(TASKS).learn(predicted(2.0, 0.0, 1), np.array([[label, 1]], np.float32)) for label in (0, 1)]
    assert answers[0].tolist() == answers[1].tolist()


def test_one_wild_label_is_not_worth_more_than_a_few_others() -> None:
    guard = Guard(TASKS)
    ordinary = np.tile(np.array([1, 2], np.float32), (20, 1))
    guard.learn(predicted(2.0, 1.9, 20), ordinary)
    before = guard.weight()[1]
    guard.learn(predicted(2.0, 1.9, 1), np.array([[1, -1e9]], np.float32))
    assert guard.weight()[1] > 0.02 * before


@given(st.lists(st.integers(1, 39), unique=True).map(sorted))
def test_where_rows_are_cut_moves_no_bit(cuts: list[int]) -> None:
    random = np.random.default_rng(0)
    value_MBK = random.standard_normal((2, 40, 2)).astype(np.float32)
    label_BK = np.where(random.random((40, 2)) < 0.2, np.nan, random.integers(0, 2, (40, 2))).astype(np.float32)
    whole, parts = Guard(TASKS), Guard(TASKS)
    expected = whole.learn(value_MBK, label_BK)
    pieces = zip(np.split(value_MBK, cuts, axis=1), np.split(label_BK, cuts), strict=True)
    answers = [parts.learn(*piece) for piece in pieces]
    assert np.concatenate(answers, axis=1).tobytes() == expected.tobytes()
    assert parts.tensors()["evidence"].tobytes() == whole.tensors()["evidence"].tobytes()


@given(st.floats(0, 1), st.floats(-80, 80), st.floats(-80, 80))
def test_the_answer_is_the_mean_of_probabilities(weight: float, student: float, control: float) -> None:
    found = answer(np.array([weight] * 2), np.array([student] * 2), np.array([control] * 2), BINARY)
    shares = 1 / (1 + np.exp(-np.array([student, control])))
    expected = weight * shares[0] + (1 - weight) * shares[1]
    assert 1 / (1 + np.exp(-found[0])) == pytest.approx(expected, rel=1e-6, abs=1e-300)
    assert found[1] == pytest.approx(weight * student + (1 - weight) * control)


def test_a_negligible_weight_is_none() -> None:
    assert weight_of(np.array([-1e9, -7.0, 0.0, 7.0, 1e9])).tolist() == [0, 0, 0.5, 1, 1]


@pytest.mark.parametrize("evidence", [-1.0, 0.5, 30.0])
def test_a_version_answers_as_the_learner_does(toy: Any, tmp_path: Any, evidence: float) -> None:
    learner = toy.learnt(Learner(toy.setup()), toy.batches(20))
    learner.tensors()["guard/evidence"][:] = evidence
    registry = Registry(tmp_path)
    registry.publish(draft(learner), learner.served_tensors(), learner.tensors(), learner.state())
    student = NumpyStudent(*registry.load_model("v000001"))
    features = toy.spec.encode(toy.spec.columns_of([e.features for e in toy.batches(1, first=500)[0]]))
    expected_BK, scores = learner.score(features), student.score(features)
    assert scores["like"] == pytest.approx(1 / (1 + np.exp(-expected_BK[:, 0])), abs=1e-5)
    assert scores["rating"] == pytest.approx(expected_BK[:, 2], abs=1e-4)
    assert (student._control is None) == (evidence == 30.0)


def test_a_label_that_stands_for_several_is_evidence_of_so_many() -> None:
    weighed, repeated = Guard(TASKS), Guard(TASKS)
    random = np.random.default_rng(1)
    value_MBK, label_BK = random.normal(size=(2, 8, 2)).astype(np.float32), np.ones((8, 2), np.float32)
    label_BK[0, 0] = label_BK[3, 1] = np.nan
    weighed.learn(value_MBK, label_BK, np.full((8, 1), 2, np.float32))
    often = np.repeat(np.arange(8), 2)
    repeated.learn(value_MBK[:, often], label_BK[often])
    assert weighed.weight()[0] == pytest.approx(repeated.weight()[0])
    for name, tensor in weighed.tensors().items():
        assert tensor[0] == pytest.approx(repeated.tensors()[name][0]), name
    assert weighed.tensors()["labels"].tolist() == [14, 14]
