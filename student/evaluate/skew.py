"""Training-serving skew, what serving saw of an impression against what the learner sees in its example; and drift.

Shapes: B examples, D dense columns, C categorical columns, F features, W examples of a window of drift.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from features.online.served_rows import ServedRow
from features.spec import FeatureBatch, FeatureSpec, together
from runtime.errors import GraftError
from runtime.frozen_model import FrozenModel

REPORT_FILE = "skew.json"
"""In the registry's folder of metrics."""


class Age(FrozenModel):
    """How old the stored rows of a view were when they were served, by event time."""

    rows: int
    mean_seconds: float
    most_seconds: float


class SkewReport(FrozenModel):
    """All comparisons since the learner started."""

    rows: int = Field(description="served rows that were compared with their example")
    differing_rows: int = Field(description="of them those in which a feature differs")
    differing: Mapping[str, int] = Field(description="feature -> rows in which it differs, the most first; others: 0")
    ages: Mapping[str, Age] = Field(description="Feast view -> the age of its rows at serving")
    drift: Mapping[str, float] = Field(
        default={}, description="column -> its population stability index, the largest first; empty before two windows"
    )

    @property
    def differing_share(self) -> float | None:
        """Of the rows; None before the first."""
        return self.differing_rows / self.rows if self.rows else None


def load_report(folder: Path) -> SkewReport:
    """What the learner has written into `folder`; GraftError when there is none, or it is not whole."""
    path = folder / REPORT_FILE
    try:
        return SkewReport.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        advice = "a learner process ('graft student train') writes it after its first comparison"
        raise GraftError(f"{path}: there is none; {advice}") from None
    except OSError as error:
        raise GraftError(f"{path}: cannot be read: {error.strerror}") from None
    except ValidationError as error:
        fault = error.errors()[0]["msg"]
        raise GraftError(f"{path}: not a report of skew: {fault}; remove it, and the learner writes it anew") from None


class Skew:
    """Compares encoded rows, value by value: one encoder has made both, so what differs was read differently."""

    def __init__(self, spec: FeatureSpec) -> None:
        self._names = [f.name for f in (*spec.dense, *spec.categorical)]
        self._starts = np.cumsum([0, *(f.width for f in spec.dense)])[:-1]
        self._rows = self._differing_rows = 0
        self._differing_F = np.zeros(len(self._names), np.int64)
        self._ages: dict[str, tuple[int, float, float]] = {}

    def compare(self, features: FeatureBatch, served: Sequence[ServedRow | None]) -> None:
        """Take in B examples with the row that served each, or None."""
        for place, row in enumerate(served):
            if row is not None:
                self._compare(features.dense_BD[place], features.categorical_BC[place], row)

    def told(self, drift: Mapping[str, float]) -> SkewReport:
        """What was found, with the drift of the last window."""
        counts = sorted(zip(self._differing_F.tolist(), self._names, strict=True), key=lambda pair: -pair[0])
        return SkewReport(
            rows=self._rows,
            differing_rows=self._differing_rows,
            differing={name: count for count, name in counts if count},
            ages={
                view: Age(rows=rows, mean_seconds=total / rows, most_seconds=most)
                for view, (rows, total, most) in sorted(self._ages.items())
            },
            drift=dict(sorted(drift.items(), key=lambda pair: -pair[1])),
        )

    def _compare(self, dense_D: NDArray[np.float32], categorical_C: NDArray[np.uint64], row: ServedRow) -> None:
        differs_D = dense_D != row.dense_D
        of_dense_F = np.logical_or.reduceat(differs_D, self._starts) if len(self._starts) else differs_D
        differs_F = np.concatenate([of_dense_F, categorical_C != row.categorical_C])
        self._rows += 1
        self._differing_rows += bool(differs_F.any())
        self._differing_F += differs_F
        for view, begin_ms in row.begins_ms.items():
            seconds = max(0.0, (row.served_at_ms - begin_ms) / 1000)
            rows, total, most = self._ages.get(view, (0, 0.0, 0.0))
            self._ages[view] = rows + 1, total + seconds, max(most, seconds)


_TENTHS = np.linspace(0.1, 0.9, 9)
_MOST_VALUES = 20
_HALF = 0.5
"""Counted in each bin beside what is there, so that an empty bin has a logarithm."""


class Drift:
    """The population stability index of each window of so many examples against the one before.

    `psi`: feature -> the index of the last full window; none before two. PSI (Siddiqi 2006, "Credit Risk Scorecards",
    ch. 6): sum over bins of (p - q) ln(p / q), p and q the shares of the two windows in a bin. A dense column's bins
    are the tenths of the earlier window, a category's its 20 most frequent values and the rest. By its usual reading a
    value below 0.1 is no change, above 0.25 a large one.
    """

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
