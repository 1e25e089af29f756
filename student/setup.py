"""What a learner is made of, checked as a whole; and whether it may continue from a version of another setup."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from features.spec import FeatureSpec
from graft.errors import ConfigurationError
from stream.tasks import TaskKind, TaskSpec
from student.config import DistillationConfig, StudentConfig
from teacher_cache.config import TeacherTask

_SHAPING = ("trunk", "cross_layers", "tower", "embedding_dim", "table_rows", "replay_capacity")
"""The student's settings that fix tensor shapes; the others may change between two starts."""


@dataclass(frozen=True)
class LearnerSetup:
    """The parts of a project that the learner needs. ConfigurationError with every fault when they do not fit."""

    spec: FeatureSpec
    tasks: tuple[TaskSpec, ...]
    distillation: tuple[DistillationConfig, ...]
    teacher_tasks: tuple[TeacherTask, ...]
    student: StudentConfig

    def __post_init__(self) -> None:
        faults = list(self._faults())
        if faults:
            raise ConfigurationError(faults)

    @cached_property
    def teacher_columns(self) -> tuple[int, ...]:
        """Per auxiliary head its column in the teacher's logits."""
        return tuple(self._column(config.teacher_task) for config in self.distillation)

    @cached_property
    def teacher_kinds(self) -> tuple[TaskKind, ...]:
        """Per auxiliary head the kind of what it predicts."""
        return tuple(self.teacher_tasks[column].kind for column in self.teacher_columns)

    @cached_property
    def reference_columns(self) -> tuple[int | None, ...]:
        """Per task the column of the teacher task that stands for the teacher in the evaluation; None: none does."""
        twins = {name: twin.teacher_task for name, twin in self.twins.items()}
        names = [task.teacher_reference or twins.get(task.name) for task in self.tasks]
        return tuple(None if name is None else self._column(name) for name in names)

    @cached_property
    def twins(self) -> dict[str, DistillationConfig]:
        """Task -> the first teacher task of its kind that is distilled through its tower; none for other tasks."""
        kinds = {task.name: task.kind for task in self.tasks}
        found: dict[str, DistillationConfig] = {}
        for config, kind in zip(self.distillation, self.teacher_kinds, strict=True):
            if config.student_task is not None and kinds[config.student_task] == kind:
                found.setdefault(config.student_task, config)
        return found

    def task_column(self, name: str) -> int:
        """The place of a task of the student among its tasks."""
        return [task.name for task in self.tasks].index(name)

    def described(self) -> dict[str, Any]:
        """What fixes the meaning of a learner's state, as JSON values."""
        return {
            "spec": self.spec.model_dump(mode="json"),
            "tasks": [[task.name, task.kind] for task in self.tasks],
            "distillation": [_described(config) for config in self.distillation],
            "teacher tasks": [[task.name, task.kind] for task in self.teacher_tasks],
            "student": self.student.model_dump(mode="json", include=set(_SHAPING)),
        }

    def check_continues(self, version: str, described: Mapping[str, Any]) -> None:
        """ConfigurationError telling all that has changed since `version` whose `described()` is given."""
        now = self.described()
        faults = [f"{path}: was {was}, is now {new}" for path, was, new in _differences("", described, now)]
        if faults:
            advice = "change it back, or set GRAFT_VERSIONS to another folder to learn anew from the first example"
            raise ConfigurationError([f"version {version} was learnt with another setup; {advice}", *faults])

    def _column(self, name: str) -> int:
        return [task.name for task in self.teacher_tasks].index(name)

    def _faults(self) -> Iterator[str]:
        kinds = {task.name: task.kind for task in self.teacher_tasks}
        tasks = {task.name for task in self.tasks}
        allowed = f"one of {', '.join(kinds)}"
        for i, config in enumerate(self.distillation):
            if config.teacher_task not in kinds:
                yield f"distillation.{i}.teacher_task: must be {allowed}, got {config.teacher_task!r}"
            if config.student_task is not None and config.student_task not in tasks:
                known = ", ".join(sorted(tasks))
                yield f"distillation.{i}.student_task: must be one of {known}, got {config.student_task!r}"
            yield from _kind_faults(f"distillation.{i}", config, kinds, {task.name: task.kind for task in self.tasks})
        twice = _repeated([config.teacher_task for config in self.distillation])
        if twice:
            yield f"distillation: each teacher task may be distilled once, got {', '.join(twice)} more often"
        for i, task in enumerate(self.tasks):
            name = task.teacher_reference
            if name is not None and kinds.get(name) != task.kind:
                same = ", ".join(other for other, kind in kinds.items() if kind == task.kind)
                yield f"tasks.{i}.teacher_reference: must be a {task.kind} teacher task ({same}), got {name!r}"


def _kind_faults(
    key: str, config: DistillationConfig, teacher_kinds: Mapping[str, TaskKind], kinds: Mapping[str, TaskKind]
) -> Iterator[str]:
    kind = teacher_kinds.get(config.teacher_task)
    if config.loss == "listwise" and kind == "regression":
        yield f"{key}.loss: must not be 'listwise' for a regression ({config.teacher_task}): it compares probabilities"
    twin = kinds.get(config.student_task or "")
    if config.reads_labels and kind is not None and twin is not None and kind != twin:
        yield f"{key}.student_task: {config.student_task!r} must be {kind} with this loss or adapter, it is {twin}"


def _described(config: DistillationConfig) -> list[str | None]:
    """What of a distilled task fixes tensor shapes."""
    options = [name for name, there in (("direct", config.loss == "direct"), ("adapter", config.adapter)) if there]
    return [config.teacher_task, config.student_task, *options]


def _repeated(names: Sequence[str]) -> list[str]:
    return sorted({name for name in names if names.count(name) > 1})


def _differences(path: str, was: Any, now: Any) -> Iterator[tuple[str, Any, Any]]:
    """Every leaf, or list of another length, in which two trees of JSON values differ."""
    if isinstance(was, Mapping) and isinstance(now, Mapping):
        for key in {**was, **now}:
            yield from _differences(f"{path}.{key}" if path else key, was.get(key), now.get(key))
    elif was != now and isinstance(was, list) and isinstance(now, list) and len(was) == len(now):
        for i, (old, new) in enumerate(zip(was, now, strict=True)):
            yield from _differences(f"{path}.{i}", old, new)
    elif was != now:
        yield path, was, now
