"""The progressive metrics against exact ones."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from stream.tasks import TaskSpec
from student.evaluate.arms import ItemMean
from student.evaluate.evaluation import RECENT_EXAMPLES, SLICES, ProgressiveEvaluation
from student.evaluate.metrics import GroupedAuc, grouped_auc
from student.evaluate.newness import NEW_EXAMPLES, Newness
from student.versions.manifest import Metrics

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


def filled(
    label_BK: NDArray[Any],
    value_BKA: NDArray[Any],
    users: Sequence[int] | None = None,
    items: Sequence[int] | None = None,
    size: int = 64,
) -> ProgressiveEvaluation:
    evaluation, newness = ProgressiveEvaluation(TASKS), Newness()
    user_B, item_B = (np.array(ids or [1] * len(label_BK), np.uint64) for ids in (users, items))
    for start in range(0, len(label_BK), size):
        rows = slice(start, start + size)
        new_2B, weight_B = newness.update(user_B[rows], item_B[rows]), np.ones(len(user_B[rows]), np.float32)
        evaluation.update(label_BK[rows], value_BKA[rows], user_B[rows], new_2B, weight_B=weight_B)
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


@pytest.mark.parametrize("nothing", [np.nan, np.inf, -np.inf])
def test_no_slice_counts_what_has_no_label_or_prediction(nothing: float) -> None:
    label_BK, value_BKA = predictions(30, 1.0, 0.0)
    clean = filled(label_BK[:20], value_BKA[:20], [*range(20)], [*range(20)]).slices()
    label_BK[20:25], value_BKA[25:] = nothing, nothing
    evaluation = filled(label_BK, value_BKA, [*range(20), *range(10)], [*range(20), *range(10)])
    assert plain(evaluation.slices()) == approx(plain(clean))


def test_all_metrics_of_four_examples_by_hand() -> None:
    # like: predicted .75 .75 .25 .25, labels 1 0 0 1; rating: predicted 2 4, labels 1 5 (mean 3, deviation 8)
    logit = np.log(3)
    label_BK = np.array([[1, 1], [0, 5], [0, np.nan], [1, np.nan]], np.float32)
    value_BKA = np.full((4, 2, 4), np.nan, np.float32)
    value_BKA[:, 0, 1] = [logit, logit, -logit, -logit]
    value_BKA[:, 1, 1] = [2, 4, 4, 4]
    metrics = filled(label_BK, value_BKA, [1, 1, 1, 2], [1, 2, 3, 4]).slices()
    log_loss = -(2 * np.log(0.75) + 2 * np.log(0.25)) / 4
    for name in SLICES:
        like = metrics[name]["like"]
        assert list(like) == ["control"]
        assert like["control"].model_dump(exclude_none=True) == approx({
            "count": 4, "positives": 2, "label_mean": 0.5, "prediction_mean": 0.5,
            "auc": 0.5,  # pairs: + .75 with - .75 (tie), - .25; + .25 with - .75, - .25 (tie): (.5 + 1 + 0 + .5) / 4
            "gauc": 0.75,  # user 1 has three rows and the pairs (.75, .75), (.75, .25); user 2 has one class
            "log_loss": log_loss, "normalized_entropy": log_loss / np.log(2),
            "calibration": 1.0, "ece": 0.25,
        })  # fmt: skip
        rating = metrics[name]["rating"]["control"].model_dump(exclude_none=True)
        assert rating == approx({"count": 2, "label_mean": 3, "prediction_mean": 3, "rmse": 1, "r2": 1 - 2 / 8})


def test_an_item_and_a_user_are_new_for_their_first_ten_examples() -> None:
    label_BK, value_BKA = predictions(60, 1.0, 0.0)
    users, items = [n % 3 for n in range(60)], [7] * 30 + [8] * 30
    slices = filled(label_BK, value_BKA, users, items).slices()
    first = [*range(10), *range(30, 40)]
    assert slices["new_items"]["like"]["student"].count == 2 * NEW_EXAMPLES
    assert slices["new_users"]["like"]["student"].count == 3 * NEW_EXAMPLES
    expected = filled(label_BK[first], value_BKA[first]).whole()["like"]["student"]
    found = slices["new_items"]["like"]["student"]
    assert (found.auc, found.log_loss, found.ece) == approx((expected.auc, expected.log_loss, expected.ece))


def test_whole_stream_gauc_compares_within_blocks_the_open_one_included() -> None:
    count = 2 * RECENT_EXAMPLES + 500
    label_BK, value_BKA = predictions(count, 1.0, 0.0)
    users = np.random.default_rng(1).integers(0, 100, count)
    evaluation = filled(label_BK, value_BKA, users.tolist(), size=300)

    def gauc(first: int, last: int) -> GroupedAuc:
        rows = slice(first, last)
        return grouped_auc(users[rows].astype(np.uint64), label_BK[rows, 0], value_BKA[rows, 0, 0])

    blocks = [gauc(0, 2000), gauc(2000, 4000), gauc(4000, 4500)]
    expected = sum(b.weighted for b in blocks) / sum(b.weight for b in blocks)
    assert evaluation.whole()["like"]["student"].gauc == pytest.approx(expected)
    assert evaluation.recent()["like"]["student"].gauc == pytest.approx(gauc(count - 2000, count).mean())


VALUES = st.floats(-30, 30, width=32) | st.just(float("nan"))
ROWS = st.lists(
    st.tuples(
        st.sampled_from([0.0, 1.0, float("nan")]),
        st.integers(-5, 5) | st.just(float("nan")),
        VALUES,
        VALUES,
        st.integers(0, 4),
    ),
    min_size=1,
    max_size=50,
)


def columns(rows: list[Any]) -> tuple[NDArray[Any], NDArray[Any], list[int]]:
    label_BK = np.array([[like, rating] for like, rating, *_ in rows], np.float32)
    value_BKA = np.full((len(rows), 2, 4), np.nan, np.float32)
    value_BKA[:, :, 0] = np.array([[like, rating] for _, _, like, rating, _ in rows], np.float32)
    return label_BK, value_BKA, [user for *_, user in rows]


@given(ROWS, st.randoms(use_true_random=False))
def test_whole_and_recent_do_not_depend_on_the_order_of_rows(rows: list[Any], random: Any) -> None:
    before = filled(*columns(rows))
    random.shuffle(rows)
    after = filled(*columns(rows))
    assert plain({"whole": before.whole(), "recent": before.recent()}) == approx(
        plain({"whole": after.whole(), "recent": after.recent()})
    )


@given(ROWS, st.integers(1, 9))
def test_where_batches_are_cut_does_not_matter(rows: list[Any], size: int) -> None:
    assert plain(filled(*columns(rows), size=size).slices()) == approx(plain(filled(*columns(rows)).slices()))


@given(ROWS, ROWS)
def test_a_restored_state_goes_on_bit_for_bit_and_does_not_grow(before: list[Any], after: list[Any]) -> None:
    label_BK, value_BKA, users = columns(before)
    one, other = filled(label_BK, value_BKA, users), ProgressiveEvaluation(TASKS)
    other.restore({name: tensor.copy() for name, tensor in one.tensors().items()})
    label_BK, value_BKA, users = columns(after)
    for evaluation in (one, other):
        new_2B, weight_B = np.ones((2, len(users)), np.bool_), np.ones(len(users), np.float32)
        evaluation.update(label_BK, value_BKA, np.array(users, np.uint64), new_2B, weight_B=weight_B)
    assert {n: t.tobytes() for n, t in one.tensors().items()} == {n: t.tobytes() for n, t in other.tensors().items()}
    assert one.slices() == other.slices()
    assert sizes(one) == sizes(ProgressiveEvaluation(TASKS))


def plain(slices: Mapping[str, Metrics]) -> dict[tuple[str, ...], Any]:
    """Every metric that is defined, by slice, task, arm and name."""
    return {
        (name, task, arm, metric): value
        for name, tasks in slices.items()
        for task, arms in tasks.items()
        for arm, metrics in arms.items()
        for metric, value in metrics
        if value is not None
    }


def approx(expected: Any) -> Any:
    return pytest.approx(expected, rel=1e-6, abs=1e-7)


def sizes(evaluation: ProgressiveEvaluation) -> dict[str, int]:
    return {name: tensor.nbytes for name, tensor in evaluation.tensors().items()}


def test_the_age_is_a_mean_over_the_examples_that_are_counted() -> None:
    label_BK, value_BKA = predictions(4, 1.0, 0.0)
    label_BK[0, 0] = value_BKA[1, 1, 2] = np.nan
    user_B, new_2B = np.arange(4, dtype=np.uint64), np.array([[True, False] * 2, [False] * 4])
    evaluation = ProgressiveEvaluation(TASKS)
    evaluation.update(
        label_BK, value_BKA, user_B, new_2B, np.array([1, 3, 5, 10], np.float32), weight_B=np.ones(4, np.float32)
    )
    slices = evaluation.slices()
    for name in ("whole", "recent"):
        assert slices[name]["like"]["student"].age_examples == pytest.approx((3 + 5 + 10) / 3)
        assert slices[name]["rating"]["teacher"].age_examples == pytest.approx((1 + 5 + 10) / 3)
    assert slices["new_items"]["like"]["student"].age_examples == 5


def test_what_no_version_predicted_has_no_age() -> None:
    label_BK, value_BKA = predictions(30, 1.0, 0.0)
    for metrics in filled(label_BK, value_BKA).slices().values():
        assert metrics["like"]["student"].age_examples is None


def test_an_items_mean_is_shrunk_to_the_overall_mean() -> None:
    means = ItemMean(TASKS)
    means.update(
        np.array([1, 1, 2], np.uint64), np.array([[1, 4], [1, np.nan], [0, 2]], np.float32), np.ones(3, np.float32)
    )
    # like: overall (2 + 1) / (3 + 2) = 0.6; a: (2 + 5 * 0.6) / (2 + 5) = 5/7. rating: overall 3; a: (4 + 15) / 6
    a, unseen = means.score(np.array([1, 3], np.uint64))
    assert a[0] == pytest.approx(np.log(5 / 2))
    assert a[1] == pytest.approx(19 / 6)
    assert unseen.tolist() == pytest.approx([np.log(0.6 / 0.4), 3])


def test_items_are_forgotten_beyond_the_capacity_and_the_state_continues() -> None:
    means = ItemMean(TASKS, capacity=2)
    for item in (1, 2, 1, 3):
        means.update(np.array([item], np.uint64), np.array([[1, item]], np.float32), np.ones(1, np.float32))
    assert len(means) == 2
    other = ItemMean(TASKS, capacity=2)
    other.restore(means.tensors())
    for one in (means, other):
        one.update(np.array([4], np.uint64), np.array([[0, 5]], np.float32), np.ones(1, np.float32))
    all_B = np.array([1, 2, 3, 4], np.uint64)
    assert means.score(all_B).tobytes() == other.score(all_B).tobytes()
    assert len(other) == 2


def test_a_row_that_stands_for_several_counts_as_so_many_rows() -> None:
    """In every metric of every slice, and in the window where the rows stand for no more than it holds."""
    label_BK, value_BKA = predictions(300, 1.5, -1.0)
    random = np.random.default_rng(4)
    weight_B = random.choice([1, 1, 5], 300)
    user_B, new_2B = random.integers(0, 20, 300).astype(np.uint64), random.random((2, 300)) < 0.5
    often = np.repeat(np.arange(300), weight_B)
    weighed, repeated = ProgressiveEvaluation(TASKS), ProgressiveEvaluation(TASKS)
    age_B = random.integers(1, 9, 300).astype(np.float32)
    weighed.update(label_BK, value_BKA, user_B, new_2B, age_B, weight_B=weight_B.astype(np.float32))
    columns = label_BK[often], value_BKA[often], user_B[often], new_2B[:, often], age_B[often]
    repeated.update(*columns, weight_B=np.ones(len(often), np.float32))
    for name, expected in repeated.slices().items():
        for task in ("like", "rating"):
            for arm, metrics in expected[task].items():
                found = weighed.slices()[name][task][arm].model_dump()
                assert found == pytest.approx(metrics.model_dump()), (name, task, arm)


def test_an_evaluation_of_an_earlier_release_goes_on_with_rows_that_stand_for_one() -> None:
    label_BK, value_BKA = predictions(100, 1.0, 0.0)
    before = filled(label_BK, value_BKA)
    other = ProgressiveEvaluation(TASKS)
    other.restore({name: tensor for name, tensor in before.tensors().items() if name != "weight"})
    assert other.slices() == before.slices()


def test_an_items_mean_counts_a_label_as_often_as_it_stands_for() -> None:
    weighed, repeated = ItemMean(TASKS), ItemMean(TASKS)
    items, label_BK = np.array([1, 2], np.uint64), np.array([[0, 4], [1, np.nan]], np.float32)
    weighed.update(items, label_BK, np.array([3, 1], np.float32))
    rows = [0, 0, 0, 1]
    repeated.update(items[rows], label_BK[rows], np.ones(4, np.float32))
    assert weighed.score(items).tolist() == repeated.score(items).tolist()
