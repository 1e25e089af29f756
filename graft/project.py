"""The project file: one domain pair as data. Reads and validates graft.toml; every fault is reported at once."""

import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pydantic import BaseModel, Field, ValidationError

from features.config import FeaturesConfig, parse_expression
from features.spec import FeatureSpec
from graft.faults import faults_of
from graft.removed import without_removed
from runtime.errors import ConfigurationError, InvalidInputError, did_you_mean
from runtime.frozen_model import FrozenModel
from stream.config import StreamConfig, Topics
from stream.join.sampling import SamplingConfig
from stream.tasks import TaskSpec
from student.learn.config import BootstrapConfig, DistillationConfig, PublishConfig
from student.learn.setup import LearnerSetup, task_faults
from student.versions.gate import GateConfig, slice_faults
from student.versions.manifest import StudentConfig
from teacher_cache.config import TeacherConfig
from teacher_cache.teacher import name_faults

FILE_NAME = "graft.toml"
EVENT_FILES = ("events.parquet", "events.jsonl")
_Table = TypeVar("_Table", bound=BaseModel)


class Project(FrozenModel):
    """A loaded graft.toml. Its paths are relative to the folder that holds it."""

    folder: Path = Field(exclude=True)
    name: str = Field(
        pattern=r"^[a-z][a-z0-9_-]*$",
        description="the project's name, which `graft check` and the study print",
        json_schema_extra={"allowed": "a lower-case letter, then lower-case letters, digits, '_' and '-'"},
    )
    tasks: list[TaskSpec] = Field(min_length=1)
    stream: StreamConfig = StreamConfig()
    sampling: SamplingConfig = SamplingConfig()
    features: FeaturesConfig
    teacher: TeacherConfig | None = None
    distillation: list[DistillationConfig] = Field(default=[])
    student: StudentConfig = StudentConfig()
    bootstrap: BootstrapConfig = BootstrapConfig()
    publish: PublishConfig = PublishConfig()
    gate: GateConfig = GateConfig()

    @property
    def needed_teacher(self) -> TeacherConfig:
        """The teacher, for what cannot do without one; ConfigurationError when the project has none."""
        if self.teacher is None:
            raise ConfigurationError([f"{FILE_NAME}: teacher: is missing; this needs a teacher, see docs/teacher.md"])
        return self.teacher

    @property
    def topics(self) -> Topics:
        """The names of this project's topics."""
        return Topics(prefix=self.stream.topic_prefix)

    @property
    def repo(self) -> Path:
        """The folder of the Feast repository."""
        return self.folder / self.features.repo

    @property
    def event_file(self) -> Path:
        """The project's own events, where `graft init` writes them; InvalidInputError without one such file."""
        names = [name for name in EVENT_FILES if (self.folder / name).exists()]
        if len(names) != 1:
            what = f"both {' and '.join(names)}; keep one" if names else f"no {' or '.join(EVENT_FILES)}; put one there"
            raise InvalidInputError(f"{self.folder}: has {what}, or name the events themselves")
        return self.folder / names[0]

    def learner_setup(self, spec: FeatureSpec) -> LearnerSetup:
        """What a learner of this project is made of; ConfigurationError when that does not fit together."""
        teacher = self.teacher
        return LearnerSetup(
            spec,
            tuple(self.tasks),
            tuple(self.distillation),
            tuple(teacher.tasks) if teacher else (),
            self.student,
            teacher.wait_seconds if teacher else 0.0,
            logits_from_ms=teacher.logits_from_ms if teacher else 0,
        )


class Draft(NamedTuple):
    """A graft.toml as far as it can be read: every fault of it, the project, and two of its tables.

    The project is None where a key has a fault. A table is None where it is left out, or a key of it has a fault.
    """

    faults: list[str]
    project: Project | None
    features: FeaturesConfig | None
    teacher: TeacherConfig | None


def load_project(folder: Path) -> Project:
    """Read `folder`/graft.toml; ConfigurationError with every fault, each with its key, value and what is allowed."""
    draft = draft_project(folder)
    if draft.project is None or draft.faults:
        raise ConfigurationError(draft.faults)
    return draft.project


def draft_project(folder: Path) -> Draft:
    """`folder`/graft.toml with its faults; ConfigurationError when the file cannot be read at all."""
    table, removed = _read(folder / FILE_NAME)
    project = None
    try:
        project = Project.model_validate({**table, "folder": folder.resolve()})
    except ValidationError as error:
        faults = faults_of(error, Project)
    else:
        faults = list(_cross_faults(project)) if not removed else []
    sound = {key: value for key, value in table.items() if key not in {place[0] for place in removed}}
    return Draft(
        [f"{FILE_NAME}: {fault}" for fault in (*faults, *removed.values())],
        project,
        _table(FeaturesConfig, sound.get("features")),
        _table(TeacherConfig, sound.get("teacher")),
    )


def _table(model: type[_Table], table: Any) -> _Table | None:
    """The table by itself; None where it has a fault, or is left out."""
    try:
        return model.model_validate(table)
    except ValidationError:
        return None


def _read(path: Path) -> tuple[dict[str, Any], dict[tuple[str, ...], str]]:
    """The table without what must not stand there, and the faults of that by their places."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        fault = f"{path}: no such file; name the project folder with --project or GRAFT_PROJECT"
    except OSError as error:
        fault = f"{path}: {error.strerror}"
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        fault = f"{path}: not valid TOML: {error}"
    else:
        kept, removed = without_removed(table)
        if kept.pop("folder", None) is not None:
            removed["folder",] = "folder: no such key"
        return kept, removed
    raise ConfigurationError([fault]) from None


def _cross_faults(project: Project) -> Iterator[str]:
    """Each statement of one table about another that is wrong."""
    yield from _duplicates("tasks", [task.name for task in project.tasks])
    if project.teacher:
        yield from project.teacher.kind_faults
        yield from name_faults(project.teacher.tasks, project.teacher.vectors)
    teacher_tasks = project.teacher.tasks if project.teacher else []
    if not any(task.served for task in project.tasks):
        yield "tasks: none is served; set served = true for what the endpoint shall answer"
    yield from task_faults(project.tasks, project.distillation, teacher_tasks)
    yield from _sampling_faults(project)
    yield from _aggregate_faults(project)
    yield from _profile_faults(project)
    yield from slice_faults(project.gate.slices, project.features.categorical)


def _sampling_faults(project: Project) -> Iterator[str]:
    sampling = project.sampling
    if not any(task.kind == "binary" for task in project.tasks):
        if sampling.one_negative_of > 1:
            yield "sampling.one_negative_of: no task is binary, so no example is a negative; leave it out"
        if sampling.drawn_negatives:
            yield "sampling.drawn_negatives: no task is binary, so a drawn row would have no label; leave it out"
    if sampling.drawn_by_popularity and not sampling.drawn_negatives:
        yield "sampling.drawn_by_popularity: nothing is drawn; set sampling.drawn_negatives, or leave it out"


def _duplicates(key: str, names: list[str]) -> Iterator[str]:
    for name, count in Counter(names).items():
        if count > 1:
            yield f"{key}: the name {name!r} stands {count} times, must be unique"


def _aggregate_faults(project: Project) -> Iterator[str]:
    tasks = [task.name for task in project.tasks]
    for i, aggregate in enumerate(project.features.aggregates):
        for column, rule in aggregate.columns.items():
            key = f"features.aggregates.{i}.columns.{column}"
            task = parse_expression(rule).task
            if task and task not in tasks:
                yield f"{key}: no such task, got {task!r}{did_you_mean(task, tasks)}"


def _profile_faults(project: Project) -> Iterator[str]:
    teacher = project.teacher
    outputs = [task.name for task in teacher.tasks] + [vector.name for vector in teacher.vectors] if teacher else []
    for i, profile in enumerate(project.features.profiles):
        for column, name in profile.columns.items():
            if name not in outputs:
                key = f"features.profiles.{i}.columns.{column}"
                yield f"{key}: no such teacher task or vector, got {name!r}{did_you_mean(name, outputs)}"
