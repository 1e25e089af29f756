"""What a learner is made of, checked as a whole; and whether a learner may continue from a version."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from features.spec import FeatureSpec
from runtime.errors import ConfigurationError, did_you_mean
from stream.tasks import TaskKind, TaskSpec
from student.learn.config import DistillationConfig
from student.versions.manifest import StudentConfig
from teacher_cache.config import TeacherTask

_SHAPING = ("trunk", "cross_layers", "tower", "embedding_dim", "table_rows", "remembered_ids", "replay_capacity")
"""The student's settings that fix tensor shapes; the others may change between two starts."""


@dataclass(frozen=True)
class LearnerSetup:
    """The parts of a project that the learner needs. ConfigurationError with every fault when they do not fit.

    `wait_seconds`: the wall clock that examples wait for logits which the batch scorer still owes.
    """

    spec: FeatureSpec
    tasks: tuple[TaskSpec, ...]
    distillation: tuple[DistillationConfig, ...]
    teacher_tasks: tuple[TeacherTask, ...]
    student: StudentConfig
    wait_seconds: float
    sees_teacher: bool = True
    """Whether its learner sees the features that are the teacher's."""
    logits_from_ms: int = 0
    """Event time: examples before it learn nothing of the teacher, which may have been trained on them."""

    def __post_init__(self) -> None:
        faults = list(task_faults(self.tasks, self.distillation, self.teacher_tasks))
        if faults:
            raise ConfigurationError(faults)

    def control(self) -> "LearnerSetup":
        """The setup of the control: the same without distillation, and blind to the teacher's features.

        Its teacher tasks stay those of the logits.
        """
        return replace(self, distillation=(), sees_teacher=False)

    @cached_property
    def teacher_columns(self) -> tuple[int, ...]:
        """Per auxiliary head its column in the teacher's logits."""
        return tuple(self.teacher_column(config.teacher_task) for config in self.distillation)

    @cached_property
    def teacher_kinds(self) -> tuple[TaskKind, ...]:
        """Per auxiliary head the kind of what it predicts."""
        return tuple(self.teacher_tasks[column].kind for column in self.teacher_columns)

    @cached_property
    def reference_columns(self) -> tuple[int | None, ...]:
        """Per task the column of the teacher task that stands for the teacher in the evaluation; None: none does."""
        twins = {name: twin.teacher_task for name, twin in self.twins.items()}
        names = [task.teacher_reference or twins.get(task.name) for task in self.tasks]
        return tuple(None if name is None else self.teacher_column(name) for name in names)

    @cached_property
    def twins(self) -> dict[str, DistillationConfig]:
        """Task -> the first teacher task that is distilled through its tower; none for other tasks."""
        found: dict[str, DistillationConfig] = {}
        for config in self.distillation:
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
            "distillation": [[config.teacher_task, config.student_task] for config in self.distillation],
            "teacher tasks": [[task.name, task.kind] for task in self.teacher_tasks],
            "student": self.student.model_dump(mode="json", include=set(_SHAPING)),
        }

    def check_continues(self, version: str, described: Mapping[str, Any]) -> None:
        """ConfigurationError with every difference from the setup of `version`, whose `described()` is given.

        In an earlier release a teacher task could have a tower of its own, and no student task: it is left out.
        """
        distilled = [row for row in described["distillation"] if row[1] is not None]
        before, now = {**described, "distillation": distilled}, self.described()
        faults = [f"{path}: was {was}, is now {new}" for path, was, new in _differences("", before, now)]
        if faults:
            advice = "change it back, or set GRAFT_VERSIONS to another folder to learn anew from the first example"
            raise ConfigurationError([f"version {version} was learnt with another setup; {advice}", *faults])

    def teacher_column(self, name: str) -> int:
        """The column of a teacher task in the teacher's logits."""
        return [task.name for task in self.teacher_tasks].index(name)


def task_faults(
    tasks: Sequence[TaskSpec], distillation: Sequence[DistillationConfig], teacher_tasks: Sequence[TeacherTask]
) -> Iterator[str]:
    """Each name in tasks or distillation that names nothing, or what does not fit, with its key in graft.toml."""
    kinds = {task.name: task.kind for task in tasks}
    teacher_kinds = {task.name: task.kind for task in teacher_tasks}
    for i, task in enumerate(tasks):
        if task.teacher_reference is not None:
            key = f"tasks.{i}.teacher_reference"
            yield from _twin_faults(key, "teacher task", task.teacher_reference, teacher_kinds, task.name, task.kind)
    twice = _repeated([config.teacher_task for config in distillation])
    if twice:
        yield f"distillation: each teacher task may be distilled once, got {', '.join(twice)} more often"
    for i, config in enumerate(distillation):
        key, kind = f"distillation.{i}", teacher_kinds.get(config.teacher_task)
        if kind is None:
            yield _no_such(f"{key}.teacher_task", "teacher task", config.teacher_task, teacher_kinds)
        key = f"{key}.student_task"
        yield from _twin_faults(key, "student task", config.student_task, kinds, config.teacher_task, kind)


def _twin_faults(
    key: str, noun: str, name: str, kinds: Mapping[str, TaskKind], twin: str, twin_kind: TaskKind | None
) -> Iterator[str]:
    """When there is no task `name`, or it is of another kind than `twin`, whose kind is None where it is unknown."""
    if name not in kinds:
        yield _no_such(key, noun, name, kinds)
    elif twin_kind not in (None, kinds[name]):
        yield f"{key}: {name!r} is {kinds[name]}, but {twin!r} is {twin_kind}; both must be of one kind"


def _no_such(key: str, noun: str, name: str, known: Iterable[str]) -> str:
    return f"{key}: no such {noun}, got {name!r}{did_you_mean(name, known)}"


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
