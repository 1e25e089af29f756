"""The progressive metrics against exact ones."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from stream.tasks import TaskSpec
from student.evaluation import RECENT_EXAMPLES, ProgressiveEvaluation, exact_auc, histogram_auc
from student.item_mean import ItemMean

TASKS = (
    TaskSpec(name="like", kind="binary", window_seconds=1),
    TaskSpec(name="rating", kind="regression", window_seconds=1),
)


def predictions(count: int, deviation: float, mean: float) -> tuple[NDArray[Any], NDArray[Any]]:
    random = np.random.default_rng(3)
    logit_B = random.normal(mean, deviation, count)
    label_BK = np.stack([random.random(count) < 1 / (1 + np.exp(-logit_B)), random.normal(3, 1, count)], axis=1)
    value_BKA = random.normal(3, 1, (count, 2, 4))
    value_BKA[:, 0, 0] = logit_B
    return label_BK.astype(np.float32), value_BKA.astype(np.float32)


def pairwise_auc(label_B: NDArray[Any], score_B: NDArray[Any]) -> float:
    difference = score_B[label_B == 1][:, None] - score_B[label_B == 0][None, :]
    return float(((difference > 0) + 0.5 * (difference == 0)).mean())


def filled(label_BK: NDArray[Any], value_BKA: NDArray[Any]) -> ProgressiveEvaluation:
    evaluation = ProgressiveEvaluation(TASKS)
    for start in range(0, len(label_BK), 64):
        evaluation.update(label_BK[start : start + 64], value_BKA[start : start + 64])
    return evaluation


@pytest.mark.parametrize(("deviation", "mean"), [(1.0, 0.0), (0.05, 0.3), (3.0, -4.0)])
def test_the_whole_streams_auc_is_exact_to_a_thousandth(deviation: float, mean: float) -> None:
    label_BK, value_BKA = predictions(6000, deviation, mean)
    whole = filled(label_BK, value_BKA).whole()["like"]["student"]
    assert whole.count == 6000
    assert whole.auc == pytest.approx(pairwise_auc(label_BK[:, 0], value_BKA[:, 0, 0]), abs=1e-3)


def test_losses_are_exact() -> None:
    label_BK, value_BKA = predictions(500, 2.0, 0.0)
    whole = filled(label_BK, value_BKA).whole()
    p = 1 / (1 + np.exp(-value_BKA[:, 0, 0].astype(np.float64)))
    y = label_BK[:, 0]
    assert whole["like"]["student"].log_loss == pytest.approx(-(y * np.log(p) + (1 - y) * np.log(1 - p)).mean())
    error = value_BKA[:, 1, 1].astype(np.float64) - label_BK[:, 1]
    assert whole["rating"]["control"].rmse == pytest.approx((error**2).mean() ** 0.5)
    assert whole["rating"]["control"].auc is None
    assert whole["like"]["student"].rmse is None


def test_the_recent_window_forgets() -> None:
    label_BK, value_BKA = predictions(RECENT_EXAMPLES + 777, 1.0, 0.0)
    recent = filled(label_BK, value_BKA).recent()["like"]["student"]
    window = slice(777, None)
    assert recent.count == RECENT_EXAMPLES
    assert recent.auc == pytest.approx(pairwise_auc(label_BK[window, 0], value_BKA[window, 0, 0]))


def test_missing_labels_and_values_are_not_counted() -> None:
    label_BK, value_BKA = predictions(10, 1.0, 0.0)
    label_BK[:3, 1] = np.nan
    value_BKA[5:, :, 2] = np.nan
    value_BKA[:, 0, 3] = np.nan
    evaluation = filled(label_BK, value_BKA)
    for metrics in (evaluation.whole(), evaluation.recent()):
        assert metrics["rating"]["student"].count == 7
        assert metrics["rating"]["teacher"].count == 2
        assert metrics["like"]["teacher"].count == 5
        assert "item_mean" not in metrics["like"]


def test_ties_count_half_and_one_class_has_no_auc() -> None:
    assert exact_auc(np.array([1, 0, 1, 0], np.float32), np.array([1, 1, 2, 0], np.float32)) == 3.5 / 4
    assert exact_auc(np.ones(3, np.float32), np.arange(3, dtype=np.float32)) is None
    assert histogram_auc(np.array([[0, 0], [1, 2]])) is None


def test_an_items_mean_is_shrunk_to_the_overall_mean() -> None:
    means = ItemMean(TASKS)
    means.update(["a", "a", "b"], np.array([[1, 4], [1, np.nan], [0, 2]], np.float32))
    # like: overall (2 + 1) / (3 + 2) = 0.6; a: (2 + 5 * 0.6) / (2 + 5) = 5/7. rating: overall 3; a: (4 + 15) / 6
    a, unseen = means.score(["a", "c"])
    assert a[0] == pytest.approx(np.log(5 / 2))
    assert a[1] == pytest.approx(19 / 6)
    assert unseen.tolist() == pytest.approx([np.log(0.6 / 0.4), 3])


def test_items_are_forgotten_beyond_the_capacity_and_the_state_continues() -> None:
    means = ItemMean(TASKS, capacity=2)
    for item in (1, 2, 1, 3):
        means.update([item], np.array([[1, item]], np.float32))
    assert len(means) == 2
    other = ItemMean(TASKS, capacity=2)
    other.restore(means.tensors())
    for one in (means, other):
        one.update([4], np.array([[0, 5]], np.float32))
    assert means.score([1, 2, 3, 4]).tobytes() == other.score([1, 2, 3, 4]).tobytes()
    assert len(other) == 2
