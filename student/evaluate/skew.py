"""Training-serving skew: what serving saw of an impression against what the learner sees in its example.

Shapes: B examples, D dense columns, C categorical columns, F features.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from features.served_rows import ServedRow
from features.spec import FeatureBatch, FeatureSpec
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
