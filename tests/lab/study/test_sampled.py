"""A study of a sampled log: an example counts as often as it stands for, and drawn negatives are named."""

import numpy as np
import pytest

from lab.study.findings.comparison import UserBootstrap
from lab.study.log.study_log import StudyLog, of_slices, scores_of
from lab.study.report import _against_drawn
from lab.study.studied import sampled
from stream.events import Example, Sampled
from stream.log.examples import ExampleRecord
from stream.tasks import TaskSpec
from tests.stream.pair import SPEC

TASKS = (
    TaskSpec(name="like", kind="binary", window_seconds=20),
    TaskSpec(name="rating", kind="regression", window_seconds=60),
)
ROWS = 200
RANDOM = np.random.default_rng(3)
LABEL_NK = np.stack([RANDOM.random(ROWS) < 0.4, RANDOM.normal(size=ROWS)], axis=1).astype(np.float32)
VALUE_NKA = (0.5 * LABEL_NK[:, :, None] + RANDOM.normal(size=(ROWS, 2, 1))).astype(np.float32)
WEIGHT_N = np.where(LABEL_NK[:, 0] == 0, 5, 1).astype(np.float32)
AGAIN = np.repeat(np.arange(ROWS), WEIGHT_N.astype(int))


def test_scores_are_those_of_a_log_in_which_each_example_comes_as_often_as_it_stands_for() -> None:
    weighed = scores_of(TASKS, ["student"], LABEL_NK, VALUE_NKA, WEIGHT_N)
    repeated = scores_of(TASKS, ["student"], LABEL_NK[AGAIN], VALUE_NKA[AGAIN])
    assert weighed["like"]["student"] == pytest.approx(repeated["like"]["student"], abs=1e-12)
    assert weighed["rating"]["student"] == pytest.approx(repeated["rating"]["student"], abs=1e-6)
    assert weighed["rating"] != scores_of(TASKS, ["student"], LABEL_NK, VALUE_NKA)["rating"]
    half = {"late": np.arange(ROWS) >= ROWS // 2}
    late = scores_of(TASKS, ["student"], *(of[ROWS // 2 :] for of in (LABEL_NK, VALUE_NKA, WEIGHT_N)))
    assert of_slices(half, TASKS, ["student"], LABEL_NK, VALUE_NKA, WEIGHT_N)["late"] == late


def test_so_are_the_draws_of_an_interval() -> None:
    users = [f"u{n % 25}" for n in range(ROWS)]
    everyone = np.ones(ROWS, np.bool_)
    weighed, repeated = UserBootstrap(users, WEIGHT_N), UserBootstrap([users[n] for n in AGAIN])
    for k, kind in enumerate(("binary", "regression")):
        columns = LABEL_NK[:, k], VALUE_NKA[:, k, 0]
        found = weighed.scores(kind, *columns, everyone)
        expected = repeated.scores(kind, *(of[AGAIN] for of in columns), everyone[AGAIN])
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def log(*changes: dict[str, object]) -> StudyLog:
    base = Example(
        impression_id="i", user_id=1, item_id="a", event_time_ms=5, context={}, spec_id="s", features=[], labels={}
    )
    return StudyLog(SPEC, [ExampleRecord(0, n, base.model_copy(update=change)) for n, change in enumerate(changes)])


def test_the_page_says_that_negatives_were_left_out_or_drawn_and_nothing_of_another_log() -> None:
    assert sampled(log({}, {})) == []
    (left_out,) = sampled(log({}, {"weight": 5}))
    assert left_out.startswith("The log was sampled: its 2 examples stand for 6 impressions")
    (drawn,) = sampled(log({}, {"sampled": Sampled(of="i", recipe="uniform", log_odds=None)}))
    assert "Of the 2 examples 1 are negatives that were drawn" in drawn
    assert "every AUC here is one against drawn negatives" in drawn


def test_an_auc_against_drawn_negatives_is_never_called_auc_in_the_numbers_for_programs() -> None:
    told = {"auc": {"like": {"student": 0.8}}, "windows": [{"from": 0, "auc": {}}], "rmse": 1}
    renamed = {"auc_against_drawn": {"like": {"student": 0.8}}, "windows": [{"from": 0, "auc_against_drawn": {}}]}
    assert _against_drawn(told) == renamed | {"rmse": 1}
