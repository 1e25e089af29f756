"""Intervals and evidence hold at all times: streams that drift and depend on themselves try to break them."""

from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from student.evaluate.confidence import Evidence, interval

STREAMS, BLOCKS, BLOCK, BOUND = 500, 60, 50, 0.1
ONE = np.ones(STREAMS)


def sums(values_SB: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.stack([np.full(len(values_SB), values_SB.shape[1]), values_SB.sum(1), (values_SB**2).sum(1)], axis=1)


def streams(kind: str) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Blocks of differences in [-1, 1] and their conditional means, which are `BOUND` at most.

    All but the rare ones are as far from their mean, up or down, as the difference before says.
    """
    random, before_S = np.random.default_rng(1), np.zeros(STREAMS)
    for at in range(0, BLOCKS * BLOCK, BLOCK):
        values_SB, means_SB = np.zeros((STREAMS, BLOCK)), np.zeros((STREAMS, BLOCK))
        for b in range(BLOCK):
            mean_S = np.full(STREAMS, BOUND)
            if kind == "drifting":
                mean_S *= np.sin((at + b) / 200)
            elif kind == "autocorrelated":
                mean_S = np.minimum(BOUND, 0.8 * before_S)
            size_S = np.minimum(0.2 + np.abs(before_S), 1 - np.abs(mean_S))
            values_SB[:, b] = mean_S + size_S * random.choice([-1.0, 1.0], STREAMS)
            if kind == "rare":  # few are as large as they may be, the others nearly nothing
                large_S = random.random(STREAMS) < 0.15
                values_SB[:, b] = np.where(large_S, 1.0, (BOUND - 0.15) / 0.85)
            means_SB[:, b], before_S = mean_S, values_SB[:, b]
        yield values_SB, means_SB


@pytest.mark.parametrize("kind", ["drifting", "autocorrelated", "at the bound", "rare"])
def test_the_chance_of_any_error_at_any_time_is_below_the_one_declared(kind: str) -> None:
    total_S3, mean_S, evidence = np.zeros((STREAMS, 3)), np.zeros(STREAMS), Evidence(STREAMS)
    missed_S, risen_S = np.zeros(STREAMS, np.bool_), np.zeros(STREAMS, np.bool_)
    for values_SB, means_SB in streams(kind):
        assert np.abs(values_SB).max() <= 1
        assert means_SB.max() <= BOUND
        total_S3 += sums(values_SB)
        mean_S += means_SB.sum(1)
        evidence.add(sums(values_SB), np.full(STREAMS, BOUND), ONE)
        low_S, high_S = interval(total_S3, ONE, 0.05).T
        missed_S |= (mean_S / total_S3[:, 0] < low_S) | (mean_S / total_S3[:, 0] > high_S)
        risen_S |= evidence.log() > np.log(1 / 0.05)
    assert missed_S.mean() < 0.05
    assert risen_S.mean() < 0.05
    assert (high_S - low_S).max() < 0.3, "an interval that is never narrow shows nothing"


def test_a_rise_is_seen_soon_also_after_a_long_time_without_one() -> None:
    random, evidence = np.random.default_rng(2), Evidence(20)
    for _ in range(200):
        quiet_SB = np.clip(random.normal(-0.05, 0.4, (20, 250)), -1, 1)
        evidence.add(sums(quiet_SB), np.zeros(20), np.ones(20))
    assert (evidence.log() < 0).all()
    for _ in range(3):
        evidence.add(sums(np.clip(random.normal(0.25, 0.4, (20, 200)), -1, 1)), np.zeros(20), np.ones(20))
    assert (evidence.log() > np.log(1 / 0.001)).all()


def test_a_long_interval_narrows_around_the_mean() -> None:
    values_SB = np.clip(np.random.default_rng(3).normal(0.02, 0.1, (1, 20_000)), -1, 1)
    low, high = interval(sums(values_SB), np.ones(1), 0.05)[0]
    assert 0.015 < low < 0.02 < high < 0.025


def test_without_differences_nothing_is_known() -> None:
    assert interval(np.zeros((1, 3)), np.ones(1), 0.05).tolist() == [[-np.inf, np.inf]]
    evidence = Evidence(1)
    evidence.add(np.zeros((1, 3)), np.zeros(1), np.ones(1))
    assert evidence.log().tolist() == [-np.inf]
