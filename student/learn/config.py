"""How the student is distilled, bootstrapped and published: tables of graft.toml."""

from typing import Any

from pydantic import Field, model_validator

from runtime.frozen_model import FrozenModel


class DistillationConfig(FrozenModel):
    """How one teacher task is distilled: an auxiliary head on the tower of `student_task` learns it.

    It minimises the cross-entropy with the teacher's probability, or the squared error of a regression. A teacher task
    that means none of the student's has no such table.
    """

    teacher_task: str = Field(description="the teacher task to distil, of teacher.tasks")
    student_task: str = Field(description="the task that means the same; its tower carries the auxiliary head")
    weight: float = Field(
        default=1.0,
        ge=0,
        le=100,
        description="weight of its loss beside the labels' losses; 0: only a bootstrap learns it, with weight 1",
    )
    gradient_scale: float = Field(
        default=1.0,
        ge=0,
        le=100,
        description="factor on the gradient that the auxiliary head sends into the trunk (ExFM)",
    )

    @model_validator(mode="before")
    @classmethod
    def _names_its_student_task(cls, table: Any) -> Any:
        """Of an earlier release: a tower of its own."""
        if isinstance(table, dict) and "teacher_task" in table and "student_task" not in table:
            raise ValueError(
                "student_task is missing: name the task that means the same, or remove this table (a tower of its own "
                "was worth nothing: docs/decisions/006-distillation.md)"
            )
        return table


FEWEST_ROWS = 100
"""Of a bootstrap: a tenth of fewer shows nothing of what was learnt."""


class BootstrapConfig(FrozenModel):
    """What ``graft student bootstrap`` distils before the first example."""

    rows: int = Field(
        default=50_000,
        ge=FEWEST_ROWS,
        description="distinct rows of a user and an item that the teacher scores; a tenth of them is held out",
    )
    steps: int = Field(default=1_000, ge=1, description="optimizer steps, each with as many rows as a step on examples")


class PublishConfig(FrozenModel):
    """When a version is published, and how many are kept."""

    every_seconds: float = Field(
        default=5.0, gt=0, description="wall clock between two versions; a version ends with a whole step"
    )
    keep: int = Field(
        default=50,
        ge=2,
        description="how many of the newest versions are kept; those with a name, the champion's parent and up to 8 "
        "for served metrics are kept too",
    )
