"""The teacher of a study: the pair's own, or a worse one on purpose. Shapes: B rows, N examples, T teacher tasks."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from features.spec import FeatureSpec
from graft.errors import ConfigurationError
from graft.project import Project
from graft.study.grid import TeacherChange
from graft.study.study_log import StudyLog
from stream.events import TeacherRequest
from teacher_cache.config import DefaultInput, TeacherConfig
from teacher_cache.domain_map import DomainMap
from teacher_cache.request_scorer import RequestScorer
from teacher_cache.teacher import load_teacher

_CHUNK = 4_096
_SEED = 20_260_101  # of what is drawn to spoil the teacher: the same for every seed of the learner


class Logits:
    """Every change's logits of a log, computed once and kept as .npz files in `folder`."""

    def __init__(self, folder: Path, log_key: str) -> None:
        self._folder = folder
        self._log_key = log_key

    def path(self, change: TeacherChange) -> Path:
        """Where those of a change are."""
        return self._folder / f"{self._log_key}-{change.key}.npz"

    def compute(self, change: TeacherChange, project: Project, log: StudyLog) -> None:
        """Write them unless they are there."""
        path = self.path(change)
        if path.exists():
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        logit_NT = changed(change, score(changed_config(change, project.teacher), project.folder, log))
        with path.with_suffix(".partial").open("wb") as file:
            np.savez_compressed(file, logit_NT=logit_NT)
        path.with_suffix(".partial").replace(path)

    def load(self, change: TeacherChange) -> NDArray[np.float32]:
        """[N, T]; a NaN where the teacher gave none."""
        with np.load(self.path(change), allow_pickle=False) as arrays:
            logit_NT: NDArray[np.float32] = arrays["logit_NT"]
        return logit_NT


def changed_config(change: TeacherChange, config: TeacherConfig) -> TeacherConfig:
    """The teacher's file and its domain map; ConfigurationError for an input that it does not have."""
    unknown = [name for name in change.defaulted if name not in config.inputs]
    if unknown:
        raise ConfigurationError(
            [f"teacher.defaulted: no input {name!r}; it has {', '.join(config.inputs)}" for name in unknown]
        )
    inputs = {name: DefaultInput(default=config.inputs[name].default) for name in change.defaulted}
    update = {"inputs": {**config.inputs, **inputs}}
    return config.model_copy(update={**update, "onnx": change.onnx} if change.onnx else update)


def score(config: TeacherConfig, folder: Path, log: StudyLog) -> NDArray[np.float32]:
    """The logits of a log's examples [N, T], by the batch scorer's own code."""
    scorer = _scorer(config, folder, log.spec)
    logit_NT = np.full((len(log.records), len(config.tasks)), np.nan, np.float32)
    examples = log.examples
    for start in range(0, len(examples), _CHUNK):
        requests = [
            TeacherRequest.model_construct(**{k: v for k, v in e.__dict__.items() if k != "labels"})
            for e in examples[start : start + _CHUNK]
        ]
        scored = scorer.score(requests)
        if scored is None or len(scored.logit_BT) < len(requests):
            scored_each = [scorer.score([request]) for request in requests]  # some rows were refused
            for n, one in enumerate(scored_each, start):
                if one is not None:
                    logit_NT[n] = one.logit_BT[0]
        else:
            logit_NT[start : start + len(requests)] = scored.logit_BT
    return logit_NT


def changed(change: TeacherChange, logit_NT: NDArray[np.float32]) -> NDArray[np.float32]:
    """The logits after noise, permutation, scale and shift; pure."""
    random = np.random.default_rng(_SEED)
    noise_NT = random.standard_normal(logit_NT.shape) * np.nanstd(logit_NT, axis=0)
    changed_NT = change.scale * (logit_NT + change.noise * noise_NT) + change.shift
    if change.permuted:
        changed_NT = changed_NT[random.permutation(len(changed_NT))]
    return np.asarray(changed_NT, np.float32)


def _scorer(config: TeacherConfig, folder: Path, spec: FeatureSpec) -> RequestScorer:
    teacher = load_teacher(config, folder)
    return RequestScorer(teacher, DomainMap(config, folder, teacher, spec), spec)
