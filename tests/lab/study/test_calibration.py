"""Calibration and the scores of strangers, on predictions that are made up."""

import numpy as np
import pytest

from lab.study.findings.findings import Findings
from lab.study.findings.headline import Calibration, as_json, calibrations
from lab.study.grid import Grid, Variant
from lab.study.learners.cell import Predictions, Result
from lab.study.log.study_log import StudyLog
from lab.study.report import tables
from stream.log.examples import ExampleRecord
from stream.tasks import TaskSpec
from tests.lab.study.conftest import Pair

TASKS = [
    TaskSpec(name="dwell", kind="regression", window_seconds=1),
    TaskSpec(name="click", kind="binary", window_seconds=1),
]
GRID = Grid(baseline="base", windows=[0], variants=[Variant(name="base")])
IDS = [("u1", 1), ("u1", 2), ("u2", 2), ("u3", 3), ("u3", 3), ("u4", 4)]
"""The first, the fourth and the last row have a user and an item that had never come."""
LABEL_N = [1, 0, 1, 1, 0, np.nan]
STUDENT_N = [0.75, 0.25, 0.25, 0.55, 0.55, 0.95]
"""By bins: .75 of one positive; .25 of one positive in two; .55 of one in two; the last has no label."""


def logit(share: float) -> float:
    return float(np.log(share / (1 - share)))


def predictions(student_N: list[float], control: float) -> Predictions:
    value_NA = np.array([[logit(student), logit(control), 0, 0] for student in student_N], np.float32)
    value_NKA = np.stack([np.full_like(value_NA, np.nan), value_NA], axis=1)
    label_NK = np.array([[np.nan, label] for label in LABEL_N], np.float32)
    return Predictions(label_NK, value_NKA, -value_NKA)


def found(pair: Pair) -> list[Calibration]:
    """Over two seeds; the student's other one always says .5, and the control .6."""
    kept = {1: predictions(STUDENT_N, 0.6), 2: predictions([0.5] * 6, 0.6)}
    first = pair.log.records[0].example
    examples = [first.model_copy(update={"user_id": user, "item_id": item}) for user, item in IDS]
    log = StudyLog(pair.spec, [ExampleRecord(0, n, example) for n, example in enumerate(examples)])
    results = [Result(variant="base", seed=n, examples=6, steps=1, bootstrap_steps=0, scores={}) for n in kept]
    return calibrations(
        Findings(GRID, TASKS, results, {}), log, lambda name, seed: kept[seed] if name == "base" else None
    )


def test_the_error_is_the_mean_over_rows_of_their_bins_and_over_seeds(pair: Pair) -> None:
    by_row, served = found(pair)
    first = (1 * 0.25 + 2 * 0.25 + 2 * 0.05) / 5
    assert by_row.ece["student"] == pytest.approx((first + 0.1) / 2)
    assert by_row.ece["control"] == pytest.approx(0, abs=1e-6)
    assert served.ece["control"] == pytest.approx(0.2)
    assert [(each.task, each.served) for each in (by_row, served)] == [("click", False), ("click", True)]


def test_strangers_are_rows_whose_user_and_item_had_never_come(pair: Pair) -> None:
    by_row, served = found(pair)
    assert by_row.unseen_rows == 3
    scores = [0.75, 0.55, 0.95, 0.5, 0.5, 0.5]
    assert by_row.unseen["student"] == pytest.approx(
        {"min": 0.5, "low": 0.5, "median": 0.525, "high": np.quantile(scores, 0.99), "max": 0.95}
    )
    assert served.unseen["student"]["min"] == pytest.approx(0.05)
    assert list(by_row.unseen["control"].values()) == pytest.approx([0.6] * 5)


def test_it_is_in_the_headline_and_in_the_tables(pair: Pair) -> None:
    known = found(pair)
    told = as_json(known)["click"]
    assert told["row_by_row"]["ece"].keys() == told["served"]["unseen"].keys() - {"rows"} == {"student", "control"}
    assert (told["served"]["unseen"]["rows"], told["served"]["unseen"]["control"]["max"]) == (3, pytest.approx(0.4))
    text = tables(Findings(GRID, TASKS, [], {}), known)
    assert "| click | row by row | 3 | 0.1350 | 0.0000 | 0.500 / 0.500 / 0.525 / 0.940 / 0.950 | 0.600 / " in text


def test_a_log_without_strangers_says_so(pair: Pair) -> None:
    bare = Calibration("click", served=False, unseen_rows=0, ece={"student": 0.1, "control": 0.2}, unseen={})
    assert as_json([bare])["click"]["row_by_row"]["unseen"] == {"rows": 0}
    assert "| click | row by row | 0 | 0.1000 | 0.2000 | - | - |" in tables(Findings(GRID, TASKS, [], {}), [bare])
