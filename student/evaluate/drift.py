"""How far features have moved: the population stability index of each window of examples against the one before.

PSI (Siddiqi 2006, "Credit Risk Scorecards", ch. 6): sum over bins of (p - q) ln(p / q), p and q the shares of the two
windows in a bin. A dense column's bins are the tenths of the earlier window, a category's its 20 most frequent values
and the rest. By its usual reading a value below 0.1 is no change, above 0.25 a large one.

Shapes: W examples of a window, F features.
"""

import numpy as np
from numpy.typing import NDArray

from features.spec import FeatureBatch, FeatureSpec, together

_TENTHS = np.linspace(0.1, 0.9, 9)
_MOST_VALUES = 20
_HALF = 0.5
"""Counted in each bin beside what is there, so that an empty bin has a logarithm."""


class Drift:
    """Collects windows of so many examples. `psi`: feature -> the index of the last full window; none before two."""

    def __init__(self, spec: FeatureSpec, window: int) -> None:
        self._dense_names, self._categorical_names = spec.dense_names, [f.name for f in spec.categorical]
        self._window = window
        self._waiting: list[FeatureBatch] = []
        self._waiting_examples = 0
        self._before: FeatureBatch | None = None
        self.psi: dict[str, float] = {}

    def update(self, features: FeatureBatch) -> bool:
        """Take examples in; whether a window was filled by them, and `psi` is new."""
        self._waiting.append(FeatureBatch(features.dense_BD.copy(), features.categorical_BC.copy()))
        self._waiting_examples += len(features.dense_BD)
        if self._waiting_examples < self._window:
            return False
        window = together(self._waiting)
        self._waiting, self._waiting_examples = [], 0
        if self._before is not None:
            self.psi = self._psi(self._before, window)
        self._before = window
        return bool(self.psi)

    def _psi(self, before: FeatureBatch, now: FeatureBatch) -> dict[str, float]:
        dense = zip(self._dense_names, before.dense_BD.T, now.dense_BD.T, strict=True)
        categorical = zip(self._categorical_names, before.categorical_BC.T, now.categorical_BC.T, strict=True)
        return {name: _psi(_tenths(was_W, was_W), _tenths(was_W, is_W)) for name, was_W, is_W in dense} | {
            name: _psi(*_frequent(was_W, is_W)) for name, was_W, is_W in categorical
        }


def _tenths(reference_W: NDArray[np.float32], values_W: NDArray[np.float32]) -> NDArray[np.int64]:
    """How many values lie in each tenth of the reference; equal bounds make one bin."""
    bounds = np.unique(np.quantile(reference_W, _TENTHS))
    return np.bincount(np.searchsorted(bounds, values_W, side="left"), minlength=len(bounds) + 1)


def _frequent(was_W: NDArray[np.uint64], is_W: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The counts of the most frequent values of the first, and of all others, in both."""
    values, counts = np.unique(was_W, return_counts=True)
    frequent = values[np.argsort(-counts, kind="stable")[:_MOST_VALUES]]
    first, second = (np.array([*(np.count_nonzero(of_W == value) for value in frequent)]) for of_W in (was_W, is_W))
    return np.append(first, len(was_W) - first.sum()), np.append(second, len(is_W) - second.sum())


def _psi(was: NDArray[np.int64], now: NDArray[np.int64]) -> float:
    q, p = ((counts + _HALF) / (counts + _HALF).sum() for counts in (was, now))
    return float(((p - q) * np.log(p / q)).sum())
