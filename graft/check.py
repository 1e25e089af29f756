"""`graft check`: does the project fit its feature repository and its teacher? Every fault at once.

Imports Feast; changes nothing and needs no server.
"""

from collections.abc import Callable
from typing import TypeVar

from pydantic import BaseModel, ConfigDict

from features.spec import FeatureSpec
from features.store import compile_spec
from graft.project import Project
from runtime.errors import ConfigurationError
from student.learn.config import DistillationConfig
from teacher_cache.config import DefaultInput
from teacher_cache.domain_map import faults as domain_map_faults
from teacher_cache.teacher import load_teacher

_T = TypeVar("_T")


class TaskSummary(BaseModel):
    """A task of the student."""

    model_config = ConfigDict(frozen=True)

    name: str
    kind: str
    served: bool
    window_seconds: float


class Summary(BaseModel):
    """What a sound project amounts to. D dense columns and C categorical ones make the student's input."""

    model_config = ConfigDict(frozen=True)

    name: str
    tasks: list[TaskSummary]
    dense_columns: int
    categorical_columns: int
    passthrough_features: int
    spec_id: str
    teacher_version: str
    teacher_inputs: int
    teacher_inputs_defaulted: int
    distillation: list[DistillationConfig]

    @property
    def defaulted_share(self) -> float:
        """The share of the teacher's inputs without a counterpart in the target."""
        return self.teacher_inputs_defaulted / max(1, self.teacher_inputs)

    def lines(self) -> list[str]:
        """For people."""
        mapped = self.teacher_inputs - self.teacher_inputs_defaulted
        student = f"{self.dense_columns} dense columns, {self.categorical_columns} categorical"
        teacher = f"{self.teacher_inputs} inputs, {mapped} mapped, {self.teacher_inputs_defaulted} defaulted"
        return [
            f"project {self.name} is sound",
            *(_task_line(task) for task in self.tasks),
            f"  student: {student} ({self.passthrough_features} features pass through to the teacher alone)",
            f"  teacher {self.teacher_version}: {teacher} ({self.defaulted_share:.0%})",
            *(_distillation_line(row) for row in self.distillation),
        ]


def check_project(project: Project, redis_url: str) -> Summary:
    """The summary of a project whose parts fit; ConfigurationError with every fault of every part."""
    faults: list[str] = []
    spec = _collect(faults, lambda: compile_spec(project.repo, redis_url, project.features))
    teacher = _collect(faults, lambda: load_teacher(project.teacher, project.folder))
    if teacher is not None:
        faults += domain_map_faults(project.teacher, project.folder, teacher, spec)
    if faults or spec is None:
        raise ConfigurationError(faults)
    return _summary(project, spec)


def _collect(faults: list[str], part: Callable[[], _T]) -> _T | None:
    try:
        return part()
    except ConfigurationError as error:
        faults += error.faults
        return None


def _summary(project: Project, spec: FeatureSpec) -> Summary:
    inputs = project.teacher.inputs
    return Summary(
        name=project.name,
        tasks=[
            TaskSummary(**t.model_dump(include={"name", "kind", "served", "window_seconds"})) for t in project.tasks
        ],
        dense_columns=len(spec.dense_names),
        categorical_columns=len(spec.categorical),
        passthrough_features=sum(f.role == "passthrough" for f in spec.features),
        spec_id=spec.spec_id,
        teacher_version=project.teacher.version,
        teacher_inputs=len(inputs),
        teacher_inputs_defaulted=sum(isinstance(i, DefaultInput) for i in inputs.values()),
        distillation=project.distillation,
    )


def _task_line(task: TaskSummary) -> str:
    return f"  task {task.name}: {task.kind}, window {task.window_seconds:g} s{'' if task.served else ', not served'}"


def _distillation_line(row: DistillationConfig) -> str:
    half_life = f", halved every {row.half_life_examples:,} examples" if row.half_life_examples else ""
    target = f"an auxiliary head of {row.student_task}" if row.student_task else "a non-serving tower of its own"
    return (
        f"  distillation: teacher task {row.teacher_task} through {target}, weight {row.weight:g}, "
        f"gradient scale {row.gradient_scale:g}{half_life}"
    )
