"""The gate: versions are judged on fresh examples, by what serving would have said of them, before they were learnt.

Two versions predict the same examples: the *candidate*, the newest one that was old enough for each example, as served
metrics have it, and the *champion*, the last one that examples have proven. Nothing comes back to the learner.
Shapes: B examples, K served tasks, A checks.
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
from student.evaluate.user_windows import UserWindows, weighted_sums
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
        nothing_BK = np.full_like(label_BK, np.nan)
        predicted_BK, of_candidate_BK, of_champion_BK, of_mean_BK = (nothing_BK.copy() for _ in range(4))
        later_B, said = self._said_by_champion(features, learnt_B)
        for k, task in enumerate(self._tasks):
            label_B = label_BK[:, k]
            value_B = value_BK[:, self._places[k]].astype(np.float64)
            predicted_BK[:, k] = _probability(value_B) if task.kind == "binary" else value_B
            mean, variance = _moments(task.kind, self._label_K3[k])
            of_candidate_BK[:, k] = losses_of(task.kind, label_B, predicted_BK[:, k], variance)
            if np.isfinite(mean):
                of_mean_BK[:, k] = losses_of(task.kind, label_B, np.full(len(label_B), mean), variance)
            if said:
                score_B = said[task.name].astype(np.float64)
                of_champion_BK[later_B, k] = losses_of(task.kind, label_B[later_B], score_B, variance)
        return Losses(label_BK, predicted_BK, of_candidate_BK, of_champion_BK, of_mean_BK)

    def _said_by_champion(
        self, features: FeatureBatch, learnt_B: NDArray[np.float64]
    ) -> tuple[NDArray[np.bool_], Mapping[str, NDArray[np.float32]]]:
        """Which examples were predicted by a later version, and the champion's scores of these; none without them."""
        later_B = learnt_B > (self._champion.examples if self._champion else np.inf)
        if self._champion is None or not later_B.any():
            return later_B, {}
        return later_B, self._champion.student.score(features.part(later_B))

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
