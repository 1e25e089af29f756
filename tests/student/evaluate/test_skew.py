"""Skew and drift: every difference that is planted is found, and nothing where there is none."""

from typing import Any

import numpy as np
import pytest

from features.online.served_rows import ServedRow
from features.spec import FeatureBatch
from student.evaluate.skew import Drift, Skew
from tests.student.conftest import Toy

SPEC = Toy.spec  # dense: age, taste (2 wide), mean; categorical: user_id, item_id


def served(features: FeatureBatch, place: int, **changes: Any) -> ServedRow:
    row = ServedRow("r", "v000001", 10_000, SPEC.spec_id, features.dense_BD[place], features.categorical_BC[place], {})
    return row._replace(**changes)


def batch(rows: int, seed: int = 0) -> FeatureBatch:
    random = np.random.default_rng(seed)
    dense_BD = random.standard_normal((rows, len(SPEC.dense_names))).astype(np.float32)
    return FeatureBatch(dense_BD, random.integers(0, 30, (rows, len(SPEC.categorical))).astype(np.uint64))


def test_equal_rows_do_not_differ_and_rows_that_were_not_sampled_do_not_count() -> None:
    skew, features = Skew(SPEC), batch(4)
    skew.compare(features, [served(features, 0), None, served(features, 2), None])
    report = skew.told({})
    assert (report.rows, report.differing_rows, report.differing) == (2, 0, {})
    assert report.differing_share == 0
    assert Skew(SPEC).told({}).differing_share is None


def test_each_feature_that_differs_is_named_the_most_frequent_first() -> None:
    skew, features = Skew(SPEC), batch(3)
    dense, taste = features.dense_BD[0].copy(), features.dense_BD[1].copy()
    dense[0] = np.nextafter(dense[0], np.float32(9))  # one bit
    taste[1:3] += 1  # both elements of one feature
    category = features.categorical_BC[1].copy()
    category[1] += 1
    rows = [served(features, 0, dense_D=dense), served(features, 1, dense_D=taste, categorical_C=category)]
    skew.compare(features, [*rows, served(features, 2)])
    skew.compare(features, [rows[0], None, None])
    report = skew.told({"age": 0.1, "mean": 0.4})
    assert (report.rows, report.differing_rows) == (4, 3)
    assert list(report.differing.items()) == [("age", 2), ("taste", 1), ("item_id", 1)]
    assert list(report.drift) == ["mean", "age"]


def test_ages_are_of_the_moment_of_serving_and_never_below_zero() -> None:
    skew, features = Skew(SPEC), batch(2)
    skew.compare(
        features,
        [
            served(features, 0, begins_ms={"users": 4_000, "items": 99_000}),
            served(features, 1, begins_ms={"users": 8_000}),
        ],
    )
    ages = skew.told({}).ages
    assert (ages["users"].rows, ages["users"].mean_seconds, ages["users"].most_seconds) == (2, 4.0, 6.0)
    assert ages["items"].mean_seconds == 0


def test_there_is_no_drift_between_windows_of_one_distribution_and_much_where_a_column_moves() -> None:
    drift = Drift(SPEC, 2_000)
    assert not drift.update(batch(1_500, 1))
    assert drift.psi == {}
    assert not drift.update(batch(500, 2))  # the first window: nothing to compare with
    assert drift.update(batch(2_000, 3))
    assert set(drift.psi) == {*SPEC.dense_names, "user_id", "item_id"}
    assert max(drift.psi.values()) < 0.05
    moved = batch(2_000, 4)
    moved.dense_BD[:, 0] += 1
    moved.categorical_BC[:, 1] += np.uint64(15)
    assert drift.update(moved)
    far = {name for name, psi in drift.psi.items() if psi > 0.25}
    assert far == {SPEC.dense_names[0], "item_id"}


def test_the_index_is_that_of_the_formula() -> None:
    drift = Drift(SPEC, 100)
    was, now = batch(100), batch(100)
    was.categorical_BC[:, 0], now.categorical_BC[:, 0] = 1, 1
    now.categorical_BC[:50, 0] = 2
    drift.update(was)
    drift.update(now)
    q, p = np.array([100.5, 0.5]) / 101, np.array([50.5, 50.5]) / 101
    assert drift.psi["user_id"] == pytest.approx(((p - q) * np.log(p / q)).sum())


def test_constant_columns_have_no_drift_and_a_constant_that_moves_has() -> None:
    drift = Drift(SPEC, 100)
    for value in (3.0, 3.0):
        features = batch(100)
        features.dense_BD[:, 1] = value
        drift.update(features)
    assert drift.psi["taste[0]"] == 0
    features.dense_BD[:, 1] = 4.0
    drift.update(features)
    assert drift.psi["taste[0]"] > 1


def test_what_is_given_may_change_afterwards() -> None:
    drift, features = Drift(SPEC, 100), batch(50)
    drift.update(features)
    features.dense_BD[:] = 99
    drift.update(batch(50, 1))
    drift.update(batch(100))
    assert max(drift.psi.values()) < 1
