"""The gate: versions are judged on fresh examples, by what serving would have said of them, before they were learnt.

Two versions predict the same examples: the *candidate*, the newest one that was old enough for each example, as served
metrics have it, and the *champion*, the last one that examples have proven. Nothing comes back to the learner.
Shapes: B examples, K served tasks, A checks, W places of a window, C columns that are summed.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.spec import FeatureBatch, FeatureSpec
from stream.tasks import TaskKind, TaskSpec
from student.evaluate.confidence import Evidence, interval
from student.evaluate.gate_checks import Losses, Slices, checks_of, differences, gains, losses_of
from student.evaluate.served_versions import Served
from student.versions.gate import Comparison, GateConfig, GateRecord, verdict_of
from student.versions.numpy_model import NumpyStudent
from student.versions.registry import Registry
from student.versions.version_folder import VersionError

_log = logging.getLogger(__name__)

_RECENT = 2_000.0
"""Labels: about so many stand in the mean label that a version must beat."""

_PROVEN_ERROR = 0.05
"""With which an interval misses its mean, and so a version is proven that is worse. A stop needs more."""

_LEAST_EVIDENCE = -1e3
"""Nats; JSON has no infinity."""

_LEVEL_ERROR = 0.05
"""With which the gain that was shown is known. It is a level, not a verdict: what has not been gained is not lost."""


_NEW = "heaviest", "parts", "rising"
"""What an earlier release did not save: every example stood for one, and evidence may rise until a window says not."""


class _Champion(NamedTuple):
    version: str
    examples: int
    """That it had learnt."""
    student: NumpyStudent


WINDOW = 256
"""Examples that are summed together."""

MOST_OF_A_USER = 4.0
"""Examples of a window: one who has more counts for as many, with less weight on each."""


class UserWindows:
    """Collects columns of examples, and sums them whenever `WINDOW` examples are together, however they came.

    No user counts for much, such as one who sees hundreds of items in one session.
    """

    def __init__(self, columns: int) -> None:
        self._user_W = np.zeros(WINDOW, np.uint64)
        self._part_W = np.ones(WINDOW)
        self._value_WC = np.zeros((WINDOW, columns))
        self._filled = np.zeros(1, np.int64)

    def add(
        self, user_B: NDArray[np.uint64], part_B: NDArray[np.float64], value_BC: NDArray[np.float64]
    ) -> Iterator[NDArray[np.float64]]:
        """Of each window that these examples fill: the weights of its values, their weighted sum, that of squares.

        [C, 3]; a value that is not finite does not count. `part_B`: as which part of an example each counts, up to 1.
        """
        first = 0
        while first < len(user_B):
            at = int(self._filled[0])
            last = min(len(user_B), first + WINDOW - at)
            self._user_W[at : at + last - first] = user_B[first:last]
            self._part_W[at : at + last - first] = part_B[first:last]
            self._value_WC[at : at + last - first] = value_BC[first:last]
            self._filled += last - first
            first = last
            if self._filled[0] == WINDOW:
                self._filled[0] = 0
                yield weighted_sums(self._value_WC, self._part_W * _weights(self._user_W, self._part_W))

    def clear(self) -> None:
        """Forget the examples of the open window."""
        self._filled[0] = 0

    def tensors(self) -> dict[str, NDArray[Any]]:
        """The whole state, not copied."""
        return {"users": self._user_W, "parts": self._part_W, "values": self._value_WC, "filled": self._filled}


def weighted_sums(value_BC: NDArray[np.float64], weight_B: NDArray[np.float64]) -> NDArray[np.float64]:
    """The weights of the finite values, their weighted sum, and the sum of the squares of weighted values, [C, 3]."""
    known_BC = np.isfinite(value_BC)
    weighted_BC = np.where(known_BC, value_BC, 0.0) * weight_B[:, None]
    return np.stack([weight_B @ known_BC, weighted_BC.sum(axis=0), (weighted_BC**2).sum(axis=0)], axis=1)


def _weights(user_B: NDArray[np.uint64], part_B: NDArray[np.float64]) -> NDArray[np.float64]:
    _, place_B = np.unique(user_B, return_inverse=True)
    count_U = np.bincount(place_B, part_B)
    weight_B: NDArray[np.float64] = np.minimum(1.0, MOST_OF_A_USER / count_U)[place_B]
    return weight_B


class Gate:
    """The sums of every check since the champion was proven, and the verdict that follows.

    A task is judged from the moment on at which versions are shown to say more than its mean label; with the first
    such task the gate has a champion. What it knows fits in some kilobytes, whatever the number of examples.
    """

    def __init__(self, tasks: Sequence[TaskSpec], spec: FeatureSpec, config: GateConfig, registry: Registry) -> None:
        self.config = config
        self._places = [k for k, task in enumerate(tasks) if task.served]
        self._tasks = [tasks[k] for k in self._places]
        self._checks = checks_of(self._tasks, config)
        self._slices = Slices(spec, config.slices)
        self._registry = registry
        self.start_anew()

    def start_anew(self) -> None:
        """Forget everything, also the champion."""
        self._label_K3 = np.zeros((len(self._tasks), 3))
        self._gain_2K3 = np.zeros((2, len(self._tasks), 3))
        self._judged_K = np.zeros(len(self._tasks), np.bool_)
        self._sums_A3 = np.zeros((len(self._checks), 3))
        self._evidence = Evidence(len(self._checks))
        self._users = UserWindows(len(self._checks) + 2 * len(self._tasks))
        self._heaviest = np.ones(1)
        self._rising_A = np.ones(len(self._checks), np.bool_)
        self._candidate: str | None = None
        self._next: str | None = None
        self._champion: _Champion | None = None
        self.stopped = False

    @property
    def kept(self) -> list[str]:
        """The versions whose folders must stay: they are compared, or may be promoted."""
        return [version for version in (self.champion, self._candidate, self._next) if version]

    @property
    def champion(self) -> str | None:
        """The last version that examples have proven. None before the first."""
        return self._champion.version if self._champion else None

    def update(
        self,
        features: FeatureBatch,
        label_BK: NDArray[np.float32],
        user_B: NDArray[np.uint64],
        weight_B: NDArray[np.float32],
        served: Served,
    ) -> None:
        """Take in B examples, with the labels of all tasks and what served versions have said of them.

        `weight_B`: how many impressions each stands for. The heaviest count as one, the others as a part of one, so
        that no example says more than the evidence allows for.
        """
        judged_B = served.learnt_B >= self.config.after_examples  # False where no version is old enough
        if self.stopped or not judged_B.any():
            return
        features = features.part(judged_B)
        label_BK64 = label_BK[judged_B][:, self._places].astype(np.float64)
        losses = self._losses(features, label_BK64, served.value_BKA[judged_B, :, 0], served.learnt_B[judged_B])
        self._heaviest = np.maximum(self._heaviest, weight_B[judged_B].max())
        part_B = weight_B[judged_B] / self._heaviest
        columns = [*self._compared(losses, self._slices.members(features.categorical_BC)), *_gained(losses)]
        if windows := list(self._users.add(user_B[judged_B], part_B, np.stack(columns, axis=1))):
            self._take(windows)
            self._candidate, self._next = self._next, served.asked[-1]
        self._label_K3 *= max(0.0, 1 - part_B.sum() / _RECENT)
        self._label_K3 += weighted_sums(label_BK64, part_B)

    def judge(self) -> GateRecord:
        """The verdict on what was told since the last one; a candidate that is promoted is the champion from now on."""
        record = self._record()
        verdict, _ = verdict_of(record)
        record = record.model_copy(update={"verdict": verdict})
        self._judged_K |= self._levels()[0] > 0
        if verdict == "promote" or (self._champion is None and self._judged_K.any()):
            self._prove()
        return record.model_copy(update={"proven": self.champion})

    def tensors(self) -> dict[str, NDArray[Any]]:
        """The whole state but for the names of versions; not copied."""
        own = {"label": self._label_K3, "gain": self._gain_2K3, "judged": self._judged_K, "sums": self._sums_A3}
        own |= self._evidence.tensors() | self._users.tensors() | {"heaviest": self._heaviest, "rising": self._rising_A}
        return {f"gate.{name}": tensor for name, tensor in own.items()}

    def restore(self, tensors: Mapping[str, NDArray[Any]], record: GateRecord | None) -> None:
        """Go on from what `tensors` gave and the last version's record.

        Anew where there is none, where settings or served tasks are others, and where the champion's folder is gone.
        """
        own = self.tensors()
        tensors = {f"gate.{name}": np.ones_like(own[f"gate.{name}"]) for name in _NEW} | dict(tensors)
        if record is None or record.settings != self.config or not _fit(own, tensors):
            return
        for name, tensor in own.items():
            tensor[...] = tensors[name]
        self._candidate, self._next, self.stopped = record.candidate, record.next, record.stopped
        if record.proven:
            self._champion = self._opened(record.proven)
            if self._champion is None:
                self.start_anew()

    def _take(self, windows: Sequence[NDArray[np.float64]]) -> None:
        """Add the sums of windows, [C, 3] each."""
        checks, before_A = len(self._checks), self._evidence.log()
        for new_C3 in windows:
            self._sums_A3 += new_C3[:checks]
            self._evidence.add(new_C3[:checks], *self._bounds())
            self._gain_2K3 += new_C3[checks:].reshape(self._gain_2K3.shape)
        self._rising_A[...] = self._evidence.log() > before_A

    def _prove(self) -> None:
        """The candidate is the champion from now on, with which later ones are compared; not where it is gone."""
        if self._candidate and (champion := self._opened(self._candidate)):
            self._champion = champion
            self._sums_A3[...] = 0
            self._users.clear()

    def _opened(self, version: str) -> _Champion | None:
        try:
            manifest, tensors = self._registry.map_model(version)
            return _Champion(version, manifest.examples, NumpyStudent(manifest, tensors))
        except VersionError as error:
            _log.warning("the gate does without a version that it has to compare with: %s", error)
            return None

    def _losses(
        self,
        features: FeatureBatch,
        label_BK: NDArray[np.float64],
        value_BK: NDArray[np.float32],
        learnt_B: NDArray[np.float64],
    ) -> Losses:
        """Of the candidate's values, of the champion's scores and of the mean label.

        The champion is asked only about examples that a later version has predicted.
        """
        later_B, champion_scores = np.zeros(len(label_BK), np.bool_), {}
        if self._champion is not None:
            later_B = learnt_B > self._champion.examples
        if self._champion is not None and later_B.any():
            champion_scores = self._champion.student.score(features.part(later_B))
        losses_by_task = [
            self._task_losses(k, label_BK[:, k], value_BK[:, place], later_B, champion_scores.get(task.name))
            for k, (task, place) in enumerate(zip(self._tasks, self._places, strict=True))
        ]
        return Losses(*(np.stack(columns, axis=1) for columns in zip(*losses_by_task, strict=True)))

    def _task_losses(
        self,
        k: int,
        label_B: NDArray[np.float64],
        value_B: NDArray[np.float32],
        later_B: NDArray[np.bool_],
        champion_score_b: NDArray[np.float32] | None,
    ) -> Losses:
        """Of one served task, [B] each."""
        kind = self._tasks[k].kind
        mean, variance = _moments(kind, self._label_K3[k])
        value_B64 = value_B.astype(np.float64)
        prediction_B = _probability(value_B64) if kind == "binary" else value_B64
        of_candidate_B = losses_of(kind, label_B, prediction_B, variance)
        of_champion_B, of_mean_B = np.full((2, len(label_B)), np.nan)
        if champion_score_b is not None:
            score_b = champion_score_b.astype(np.float64)
            of_champion_B[later_B] = losses_of(kind, label_B[later_B], score_b, variance)
        if np.isfinite(mean):
            of_mean_B = losses_of(kind, label_B, np.full_like(label_B, mean), variance)
        return Losses(label_B, prediction_B, of_candidate_B, of_champion_B, of_mean_B)

    def _compared(self, losses: Losses, members: Mapping[str, NDArray[np.bool_]]) -> Iterator[NDArray[np.float64]]:
        """The differences of each check, [B]; NaN where there are none."""
        found = differences(losses, self._levels(), self.config)
        for check in self._checks:
            counts_B = members[check.slice] & self._judged_K[check.k] & (self._champion is not None)
            yield np.where(counts_B, found[check.metric][:, check.k], np.nan)

    def _levels(self) -> NDArray[np.float64]:
        """What candidates and champions gain over the mean label, at least."""
        flat = self._gain_2K3.reshape(-1, 3)
        return interval(flat, np.ones(len(flat)), _LEVEL_ERROR)[:, 0].reshape(2, -1)

    def _bounds(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Bound and scale of each check, [A]."""
        return np.array([c.bound for c in self._checks]), np.array([c.scale for c in self._checks])

    def _record(self) -> GateRecord:
        _, scale_A = self._bounds()
        error = self.config.error_rate / len(self._checks)
        ends_A2, evidence_A = interval(self._sums_A3, scale_A, _PROVEN_ERROR), self._evidence.log()
        comparisons = []
        for a, check in enumerate(self._checks):
            if self._judged_K[check.k]:
                count, total = self._sums_A3[a, :2].tolist()
                comparisons.append(
                    Comparison(
                        metric=check.metric,
                        task=self._tasks[check.k].name,
                        slice=check.slice,
                        examples=int(count),
                        mean=total / count if count else None,
                        interval=tuple(ends_A2[a].tolist()) if count else None,
                        bound=check.bound,
                        evidence=max(float(evidence_A[a]), _LEAST_EVIDENCE),
                        is_rising=bool(self._rising_A[a]),
                        verdict=check.verdict,
                    )
                )
        return GateRecord(
            verdict="open",
            stopped=self.stopped,
            candidate=self._candidate,
            next=self._next,
            champion=self.champion,
            proven=self.champion,
            enough_evidence=float(-np.log(error)),
            settings=self.config,
            comparisons=comparisons,
        )


def _fit(own: Mapping[str, NDArray[Any]], found: Mapping[str, NDArray[Any]]) -> bool:
    return all(name in found and found[name].shape == tensor.shape for name, tensor in own.items())


def _gained(losses: Losses) -> Iterator[NDArray[np.float64]]:
    """What candidates gain over the mean label, task by task, then champions; [B] each."""
    for loss_BK in (losses.of_candidate, losses.of_champion):
        yield from gains(loss_BK, losses).T


def _moments(kind: TaskKind, sums_3: NDArray[np.float64]) -> tuple[float, float]:
    """Mean and variance of labels; that of a binary task with half a label of each class added. NaN without labels."""
    count, total, square = sums_3.tolist()
    if not count:
        return np.nan, np.nan
    mean = (total + 0.5) / (count + 1) if kind == "binary" else total / count
    return mean, max(0.0, square / count - mean**2)


def _probability(logit_B: NDArray[np.float64]) -> NDArray[np.float64]:
    return 0.5 * (1 + np.tanh(logit_B / 2))
