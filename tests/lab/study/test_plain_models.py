"""Models without a student: what they know, and what they find on streams whose truth is known."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lab.study.learners.plain_models import (
    BiasModel,
    LogArrays,
    OnlineRegression,
    PlainModel,
    RefitRegression,
    arrays_of,
    predictions,
)
from lab.study.log.study_log import known_after
from student.evaluate.metrics import exact_auc
from tests.lab.study.conftest import Pair

ROWS = 3_000


def stream(rows: int = ROWS, *, missing: float = 0.0) -> LogArrays:
    """Users and items with effects, a dense column of no worth, a binary task and a regression; a teacher's logit."""
    random = np.random.default_rng(3)
    user_N, item_N = random.integers(0, 60, rows), random.integers(0, 40, rows)
    user_E, item_E, taste_N = random.normal(size=60), random.normal(size=40), random.normal(size=rows)
    eta_N = user_E[user_N] + item_E[item_N] + taste_N
    label_NK = np.stack([random.random(rows) < 1 / (1 + np.exp(-eta_N)), 5 + 2 * eta_N], axis=1).astype(np.float64)
    label_NK[random.random((rows, 2)) < missing] = np.nan
    row_NC = np.stack([user_N, 60 + item_N], axis=1).astype(np.int64)
    logit_NT = (taste_N + item_E[item_N])[:, None]
    logit_NT[random.random((rows, 1)) < missing] = np.nan
    dense_ND = random.normal(size=(rows, 1)).astype(np.float32)
    return LogArrays(np.array([True, False]), dense_ND, row_NC, user_N, item_N, label_NK, logit_NT, np.ones(rows))


def models(log: LogArrays) -> dict[str, PlainModel]:
    return {
        "lr": RefitRegression(log, (0, None), teacher=False),
        "lr_teacher": RefitRegression(log, (0, None), teacher=True),
        "bayes_bias": BiasModel(log),
        "online_lr": OnlineRegression(log, 128),
    }


def judged(log: LogArrays, known_N: NDArray[np.intp]) -> dict[str, NDArray[np.float32]]:
    named = models(log)
    value_NKA = predictions(list(named.values()), known_N)
    return {name: value_NKA[:, :, a] for a, name in enumerate(named)}


def aucs(log: LogArrays, value: dict[str, NDArray[np.float32]], first: int = 0) -> dict[str, float]:
    label_N = log.label_NK[first:, 0].astype(np.float32)
    return {name: exact_auc(label_N, value_NK[first:, 0]) or 0.0 for name, value_NK in value.items()}


def known_later(rows: int, count: int) -> NDArray[np.intp]:
    """Of a log of one example a second the labels are known so many rows after the next one."""
    return known_after(rows + 1, range(0, 1_000 * count, 1_000))


def test_they_find_the_effects_of_users_and_items_and_one_the_teacher_too() -> None:
    log = stream()
    auc = aucs(log, judged(log, known_later(0, ROWS)), first=1_000)
    assert auc["lr_teacher"] > auc["lr"] + 0.05
    assert min(auc.values()) > 0.7
    assert auc["lr_teacher"] > 0.82


def test_they_say_values_of_a_regression_in_its_own_unit() -> None:
    log = stream()
    value = judged(log, known_later(0, ROWS))
    label_N, late = log.label_NK[:, 1], slice(1_000, None)
    spread = label_N[late].std()
    for name in ("lr", "lr_teacher", "bayes_bias"):
        assert np.sqrt(np.mean((value[name][late, 1] - label_N[late]) ** 2)) < 0.75 * spread, name
    assert np.isnan(value["online_lr"][:, 1]).all()


@pytest.mark.parametrize("delay", [0, 100])
def test_no_prediction_knows_a_label_of_later(delay: int) -> None:
    """Other labels from example 700 on change no prediction that is made before they are known."""
    log, other = stream(1_000), stream(1_000)
    other.label_NK[700:] = 1 - other.label_NK[700:]
    known_N = known_later(delay, 1_000)
    ours, theirs = judged(log, known_N), judged(other, known_N)
    for name in ours:
        assert np.array_equal(ours[name][: 701 + delay], theirs[name][: 701 + delay], equal_nan=True), name
        assert not np.array_equal(ours[name][-100:], theirs[name][-100:], equal_nan=True), name


def test_what_is_known_later_is_worth_less() -> None:
    log = stream()
    soon, late = (aucs(log, judged(log, known_later(r, ROWS))) for r in (0, 1_000))
    for name in soon:
        assert late[name] < soon[name] - 0.005, name


def test_a_missing_label_or_logit_is_no_number() -> None:
    log = stream(1_500, missing=0.3)
    value = judged(log, known_later(0, 1_500))
    for name in ("lr", "lr_teacher", "bayes_bias"):
        assert np.isfinite(value[name]).all(), name


def test_before_the_first_fit_the_teacher_is_followed_and_then_the_labels() -> None:
    """A teacher that says the opposite: the first 250 predictions believe it, the fits turn its weight around."""
    log = stream(1_500)
    log = log._replace(logit_NT=-3 * log.logit_NT)
    value = judged(log, known_later(0, 1_500))["lr_teacher"]
    label_N: NDArray[Any] = log.label_NK[:, 0].astype(np.float32)
    assert (exact_auc(label_N[:250], value[:250, 0]) or 1.0) < 0.4
    assert (exact_auc(label_N[500:], value[500:, 0]) or 0.0) > 0.75


def test_one_label_of_an_item_is_not_its_rate() -> None:
    """Five labels of the mean stand beside it: an item that was liked once is liked a bit more than the others."""
    random = np.random.default_rng(0)
    label_NK = (random.random((40, 1)) < 0.5).astype(np.float64)
    label_NK[-2:] = 1.0
    item_N = np.array([*([0] * 38), 1, 1])
    empty = np.empty((40, 0))
    log = LogArrays(
        np.array([True]), empty, empty.astype(np.int64), np.arange(40), item_N, label_NK, empty, np.ones(40)
    )
    model = RefitRegression(log, (None,), teacher=False)
    value = predictions([model], known_later(0, 40))
    assert 0.05 < value[39, 0, 0] - value[38, 0, 0] < 1.0


def test_no_plain_model_sees_the_teacher_but_by_its_logits(pair: Pair, logits: NDArray[np.float32]) -> None:
    """Profiles among the features tell of the teacher: the control does not see them, and no plain model does."""
    own = [feature.width for feature in pair.spec.dense if not feature.profile_of]
    assert len(own) < len(pair.spec.dense)
    log = arrays_of(pair.project.learner_setup(pair.spec), pair.log.first(5), logits[:5])
    assert log.dense_ND.shape == (5, sum(own))


def test_users_and_items_without_a_label_have_columns_of_nothing_but_0() -> None:
    """What rounding left there got a weight in its own unit, and the first label known after a fit a value of 1e12."""
    log = stream(900)
    alone = log._replace(user_N=np.arange(900), item_N=np.arange(900))
    alone.user_N[600:] = alone.item_N[600:] = 0
    value_NK = judged(alone, known_later(0, 900))["lr"]
    assert np.abs(value_NK[:, 1] - log.label_NK[:, 1]).max() < 20


def test_an_example_that_stands_for_several_counts_as_often_in_every_plain_model() -> None:
    """Negatives weigh five: probabilities of a log with a fifth of them are those of the whole log."""
    whole = stream(1_500)
    negative_N = whole.label_NK[:, 0] == 0
    kept_N = ~negative_N | (np.arange(whole.rows) % 5 == 0)
    columns = {name: of[kept_N] for name, of in whole._asdict().items() if name != "binary_K"}
    weight_N = np.where(negative_N, 5.0, 1.0)[kept_N]
    plain = LogArrays(binary_K=whole.binary_K, **columns)
    weighed = plain._replace(weight_N=weight_N)
    share = level(weighed, np.where(weighed.label_NK == 1, 50.0, -50.0))  # of the labels themselves
    for of, value_NK in judged(plain, np.arange(1, plain.rows + 1)).items():
        assert level(plain, value_NK) > 1.3 * share, of
    for of, value_NK in judged(weighed, np.arange(1, weighed.rows + 1)).items():
        assert level(weighed, value_NK) == pytest.approx(share, rel=0.1), of


def level(log: LogArrays, value_NK: NDArray[Any]) -> float:
    """The mean probability of the last half, in which negatives count five times."""
    late = slice(log.rows // 2, None)
    weight_N = np.where(log.label_NK[late, 0] == 0, 5.0, 1.0)
    return float(np.average(1 / (1 + np.exp(-value_NK[late, 0].astype(np.float64))), weights=weight_N))
