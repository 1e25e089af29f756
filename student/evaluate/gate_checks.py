"""The mean differences by which a version is judged, of each served task; docs/versions.md says what each is for.

Shapes: B examples, K served tasks, A checks.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.spec import FeatureSpec, hash_category
from runtime.errors import ConfigurationError
from stream.tasks import TaskKind, TaskSpec
from student.versions.gate import WHOLE, GateConfig, SliceConfig, Verdict, slice_faults

Floats = NDArray[np.float64]

CLIP = 1.0
"""Nats, or variances of the labels: no single example says more than this for or against a version."""

_NEAREST = 1e-6
"""A probability counts as no nearer to 0 or 1."""


class Losses(NamedTuple):
    """Of B examples and K served tasks, [B, K]; NaN where there is no label or nobody who predicts.

    `mean_label`: of predicting the mean of the labels before. `of_champion` where the candidate is a later version.
    """

    label: Floats
    prediction: Floats
    of_candidate: Floats
    of_champion: Floats
    of_mean_label: Floats


class Check(NamedTuple):
    """One mean difference of served task `k`, which must not rise above `bound`; no difference is below -`scale`."""

    metric: str
    slice: str
    k: int
    bound: float
    scale: float
    verdict: Verdict


def checks_of(tasks: Sequence[TaskSpec], config: GateConfig) -> list[Check]:
    """All of these served tasks."""
    return [check for k, task in enumerate(tasks) for check in _checks(k, task.kind, config)]


def _checks(k: int, kind: TaskKind, config: GateConfig) -> Iterator[Check]:
    yield Check("loss", WHOLE, k, config.bound, CLIP, "roll_back")
    for one in config.slices:
        yield Check("loss", one.name, k, one.bound, CLIP, "roll_back")
    yield Check("gain", WHOLE, k, config.largest_gain, CLIP, "hold")
    yield Check("lost_gain", WHOLE, k, 0.0, CLIP, "hold")
    yield Check("champion_lost_gain", WHOLE, k, 0.0, CLIP, "hold")
    if kind == "binary":
        yield Check("overprediction", WHOLE, k, 0.0, config.largest_calibration, "reject")
        yield Check("underprediction", WHOLE, k, 0.0, 1.0, "reject")


def differences(losses: Losses, level_2K: Floats, config: GateConfig) -> dict[str, Floats]:
    """Metric -> the differences [B, K]; NaN where there is none.

    `level_2K`: the gain over the mean label that the candidates and the champions have shown, at least; where that is
    not above 0 nothing is lost.
    """
    worse_BK = _clipped(losses.of_candidate, losses.of_champion)
    kept_2K = np.where(level_2K > 0, (1 - config.lost_share) * level_2K, np.nan)
    return {
        "loss": worse_BK,
        "gain": -worse_BK,
        "lost_gain": _clipped(kept_2K[0], gains(losses.of_candidate, losses)),
        "champion_lost_gain": _clipped(kept_2K[1], gains(losses.of_champion, losses)),
        "overprediction": losses.prediction - config.largest_calibration * losses.label,
        "underprediction": config.least_calibration * losses.label - losses.prediction,
    }


def gains(loss_BK: Floats, losses: Losses) -> Floats:
    """What is gained over predicting the mean label, clipped."""
    return _clipped(losses.of_mean_label, loss_BK)


def losses_of(kind: TaskKind, label_B: Floats, prediction_B: Floats, variance: float) -> Floats:
    """Log losses of probabilities, in nats; squared errors over the variance of the labels. Infinite where not finite.

    NaN without a label, and where the labels have no variance.
    """
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        if kind == "binary":
            safe_B = np.clip(prediction_B, _NEAREST, 1 - _NEAREST)
            loss_B = -np.where(label_B > 0.5, np.log(safe_B), np.log1p(-safe_B))
        else:
            loss_B = (prediction_B - label_B) ** 2 / (variance or np.nan)
    loss_B = np.where(np.isfinite(prediction_B), loss_B, np.inf)
    return np.where(np.isfinite(label_B), loss_B, np.nan)


class Slices:
    """Which examples are members of a declared slice.

    ConfigurationError for a column that is no categorical feature.
    """

    def __init__(self, spec: FeatureSpec, slices: Sequence[SliceConfig]) -> None:
        columns = [feature.name for feature in spec.categorical]
        if faults := list(slice_faults(slices, columns)):
            raise ConfigurationError(faults)
        self._hashes = {
            one.name: (columns.index(one.column), np.uint64(hash_category(one.column, one.value))) for one in slices
        }

    def members(self, category_BC: NDArray[np.uint64]) -> dict[str, NDArray[np.bool_]]:
        """By the slice's name; `WHOLE` has all."""
        found = {name: category_BC[:, column] == value for name, (column, value) in self._hashes.items()}
        return {WHOLE: np.ones(len(category_BC), np.bool_), **found}


def _clipped(left: Floats, right: Floats) -> Floats:
    """Left - right; NaN where both are infinite."""
    with np.errstate(invalid="ignore"):
        return np.clip(left - right, -CLIP, CLIP)
