"""Checks a project against its feature repository and its teacher, and finds every fault at once.

Imports Feast; changes nothing and needs no server but the teacher's own, where it has one.
"""

from collections.abc import Mapping
from contextlib import closing, suppress
from datetime import UTC, datetime
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from features.config import FeaturesConfig, ProfileConfig
from features.repo.compiler import Compiled
from features.repo.store import check_spec, view_sources
from features.spec import FeatureSpec
from graft.project import FILE_NAME, Project, draft_project
from runtime.errors import ConfigurationError, ServiceUnavailableError
from runtime.folder import open_parquet
from student.learn.config import DistillationConfig
from teacher_cache.cache.generation import Generation, generation_of
from teacher_cache.cache.generation_registry import GenerationRegistry
from teacher_cache.config import DefaultInput, TeacherConfig
from teacher_cache.domain.domain_map import DomainMap
from teacher_cache.domain.domain_map_faults import faults_of_inputs, probability_warnings
from teacher_cache.kinds.load import load_teacher
from teacher_cache.profiles import faults_of_profiles
from teacher_cache.teacher import ServerAccess, Teacher

_PREFIX = f"{FILE_NAME}: "
_NOT_CHECKED = "; whether the teacher's version is its name alone is not checked: Redis does not answer"
_REDIS_SECONDS = 1.0  # a check needs no server
_TRIED_ROWS = 256  # of the batch tables, on which the teacher is tried
_NO_ACCESS = ServerAccess()


class Summary(BaseModel):
    """What a sound project consists of. D dense columns and C categorical ones make the student's input.

    Without a teacher its version and generation are None. `teacher_context`: the context features that it sees.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    tasks: list[dict[str, Any]]
    dense_columns: int
    categorical_columns: int
    passthrough_features: int
    spec_id: str
    teacher_version: str | None
    teacher_generation: str | None
    teacher_context: list[str] = []
    is_name_checked: bool
    teacher_inputs: int
    teacher_inputs_defaulted: int
    teacher_trained_until: datetime | None = None
    distillation: list[DistillationConfig]
    profiles: list[ProfileConfig] = []
    warnings: list[str] = []

    def lines(self) -> list[str]:
        """The summary as lines of text."""
        student = f"dense columns {self.dense_columns}, categorical {self.categorical_columns}"
        return [
            f"project {self.name} is sound",
            *(_task_line(task) for task in self.tasks),
            f"  student: {student}; features for the teacher alone {self.passthrough_features}",
            *self._teacher_lines(),
            *(_distillation_line(row) for row in self.distillation),
            *(_profile_line(profile) for profile in self.profiles),
            *(f"  warning: {warning}" for warning in self.warnings),
        ]

    def _teacher_lines(self) -> list[str]:
        if self.teacher_version is None:
            return ["  no teacher: the student learns from its labels alone"]
        mapped = self.teacher_inputs - self.teacher_inputs_defaulted
        inputs = f"{self.teacher_inputs} inputs, {mapped} mapped, {self.teacher_inputs_defaulted} defaulted"
        share = self.teacher_inputs_defaulted / max(1, self.teacher_inputs)
        lines = [
            f"  teacher {self.teacher_version}: {inputs} ({share:.0%})",
            f"  generation of its logits {self.teacher_generation}{'' if self.is_name_checked else _NOT_CHECKED}",
            f"  a logit for each {_listed(['user', 'item', *self.teacher_context])}",
        ]
        if self.teacher_trained_until is not None:
            moment = self.teacher_trained_until.isoformat()
            lines.append(f"  teacher trained until {moment}: examples before that learn nothing of it")
        return lines


def check_project(folder: Path, redis_url: str, access: ServerAccess = _NO_ACCESS) -> Summary:
    """The summary of a project whose parts fit; ConfigurationError with every fault of every part that can be read.

    Where a table of graft.toml has a fault, what depends on it is not checked, so no fault follows from another one.
    """
    draft = draft_project(folder)
    # 1. The features, the teacher; each None where its table has a fault.
    repo = folder / draft.features.repo if draft.features else folder
    compiled, faults = _features(draft.features, repo, redis_url) if draft.features else (None, [])
    teacher, of_teacher = _teacher(draft.teacher, folder, access) if draft.teacher else (None, [])
    # 2. How they fit together.
    known = {feature.name: feature for feature in compiled.features} if compiled and compiled.spec else None
    if draft.teacher:
        of_teacher += faults_of_inputs(draft.teacher, folder, teacher.inputs if teacher else None, known)
        of_teacher += faults_of_profiles((known or {}).values(), teacher.outputs if teacher else {})
        of_teacher += _faults_of_moment(draft.teacher)
    faults = list(dict.fromkeys([*draft.faults, *faults, *of_teacher]))
    if faults or draft.project is None or compiled is None or compiled.spec is None:
        raise ConfigurationError(faults)
    # 3. Whether the teacher's version is the name of other logits.
    project = draft.project
    if project.teacher is None:
        return _summary(project, compiled.spec, None, is_name_checked=False)
    generation = generation_of(project.name, project.teacher, folder, compiled.spec, access)
    summary = _summary(project, compiled.spec, generation, is_name_checked=_check_name(project, generation, redis_url))
    # 4. What is odd of it, though it is sound.
    assert teacher is not None
    return summary.model_copy(update={"warnings": _teacher_warnings(project, compiled.spec, teacher, redis_url)})


def _check_name(project: Project, generation: Generation, redis_url: str) -> bool:
    """Whether Redis was there to ask; ConfigurationError when it has other logits of this name."""
    name = project.needed_teacher.version
    with closing(GenerationRegistry(redis_url, project.name, timeout_seconds=_REDIS_SECONDS)) as registry:
        try:
            faults = registry.clash(name, generation)
        except ServiceUnavailableError:
            return False
    if faults:
        raise ConfigurationError(faults)
    return True


def _features(config: FeaturesConfig, repo: Path, redis_url: str) -> tuple[Compiled | None, list[str]]:
    try:
        compiled = check_spec(repo, redis_url, config)
    except ConfigurationError as error:
        return None, list(error.faults)
    return compiled, list(compiled.faults)


def _faults_of_moment(teacher: TeacherConfig) -> list[str]:
    """Where the teacher's training data end only in the future: then it teaches nothing."""
    moment = teacher.trained_until
    if moment is None or moment <= datetime.now(UTC):
        return []
    what = f"must not be in the future, got {moment.isoformat()}: no example would learn of the teacher before that"
    advice = "set it to the time of the last event that the teacher was trained on"
    return [f"{_PREFIX}teacher.trained_until: {what}; {advice}"]


def _teacher(config: TeacherConfig, folder: Path, access: ServerAccess) -> tuple[Teacher | None, list[str]]:
    """The teacher, without its tasks and vectors where these have faults; and its faults."""
    try:
        return load_teacher(config, folder, access), []
    except ConfigurationError as error:
        faults = list(error.faults)
    except ServiceUnavailableError as error:
        return None, [f"{_PREFIX}teacher.server: {error}"]
    with suppress(ConfigurationError, ServiceUnavailableError):
        return load_teacher(config.model_copy(update={"tasks": [], "vectors": []}), folder, access), faults
    return None, faults


def _teacher_warnings(project: Project, spec: FeatureSpec, teacher: Teacher, redis_url: str) -> list[str]:
    """What is odd of the teacher's outputs on the first rows of the batch tables; a dump is not tried."""
    config = project.needed_teacher
    if config.dump is not None:
        return []
    columns = _columns(spec, _tables(project, spec, redis_url))
    inputs = DomainMap(config, project.folder, teacher, spec).map_rows(columns).inputs
    warnings = probability_warnings(teacher, config.tasks, inputs)
    return [f"teacher task {name}: {warning}" for name, warning in warnings.items()]


def _tables(project: Project, spec: FeatureSpec, redis_url: str) -> dict[str, dict[str, list[Any]]]:
    """The first rows of each batch table by view, and those of users and items under user_id and item_id."""
    tables: dict[str, dict[str, list[Any]]] = {}
    ids = {spec.user_join_key: "user_id", spec.item_join_key: "item_id"}
    for view, file in view_sources(project.repo, redis_url).tables.items():
        if file.path.is_file() and file.join_key in ids:
            tables[view] = _first_rows(file.path)
            tables.setdefault(ids[file.join_key], {"": tables[view].get(file.join_key, [])})
    return tables


def _first_rows(path: Path) -> dict[str, list[Any]]:
    """Empty where the file cannot be read: that is for what needs it to say."""
    try:
        batch = next(open_parquet(path).iter_batches(batch_size=_TRIED_ROWS), None)
    except (OSError, pa.ArrowException):
        return {}
    return batch.to_pydict() if batch is not None else {}


def _columns(spec: FeatureSpec, tables: Mapping[str, Mapping[str, list[Any]]]) -> dict[str, list[Any]]:
    """A value a row of each feature; missing where no table has it."""
    columns = {}
    for feature in spec.features:
        held = tables.get(feature.view or feature.name, {}).get(feature.feature, [])
        columns[feature.name] = list(islice(cycle(held), _TRIED_ROWS)) if held else [feature.default] * _TRIED_ROWS
    return columns


def _summary(project: Project, spec: FeatureSpec, generation: Generation | None, *, is_name_checked: bool) -> Summary:
    inputs = project.teacher.inputs if project.teacher else {}
    return Summary(
        name=project.name,
        tasks=[t.model_dump(include={"name", "kind", "served", "window_seconds"}) for t in project.tasks],
        dense_columns=len(spec.dense_names),
        categorical_columns=len(spec.categorical),
        passthrough_features=sum(f.role == "passthrough" for f in spec.features),
        spec_id=spec.spec_id,
        teacher_version=project.teacher.version if project.teacher else None,
        teacher_generation=generation.digest if generation else None,
        teacher_context=generation.context if generation else [],
        is_name_checked=is_name_checked,
        teacher_inputs=len(inputs),
        teacher_inputs_defaulted=sum(isinstance(i, DefaultInput) for i in inputs.values()),
        teacher_trained_until=project.teacher.trained_until if project.teacher else None,
        distillation=project.distillation,
        profiles=project.features.profiles,
    )


def _listed(words: list[str]) -> str:
    return f"{', '.join(words[:-1])} and {words[-1]}"


def _task_line(task: dict[str, Any]) -> str:
    served = "" if task["served"] else ", not served"
    return f"  task {task['name']}: {task['kind']}, window {task['window_seconds']:g} s{served}"


def _distillation_line(row: DistillationConfig) -> str:
    return (
        f"  distillation: teacher task {row.teacher_task} through an auxiliary head of {row.student_task}, "
        f"weight {row.weight:g}, gradient scale {row.gradient_scale:g}"
    )


def _profile_line(profile: ProfileConfig) -> str:
    others = "items" if profile.entity == "user" else "users"
    return f"  profile of each {profile.entity} over {profile.references:,} {others}: {', '.join(profile.columns)}"
