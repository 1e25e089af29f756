"""How the student is distilled, bootstrapped and published: tables of graft.toml."""

from typing import Literal, Self

from pydantic import Field, model_validator

from runtime.frozen_model import FrozenModel


class DistillationConfig(FrozenModel):
    """How one teacher task is distilled.

    An auxiliary head on the tower of `student_task` learns it; without a `student_task`, a tower that is not served.
    Losses are those of student/learn/network/losses.py.
    """

    teacher_task: str = Field(description="the teacher task to distil, of teacher.tasks")
    student_task: str | None = Field(
        default=None, description="the task whose tower carries the auxiliary head; none: a tower of its own"
    )
    loss: Literal["soft_label", "logit_mse", "listwise", "pairwise"] = Field(
        default="soft_label", description="what the auxiliary head minimises (docs/decisions/006-distillation.md)"
    )
    adapter: bool = Field(
        default=False, description="whether a network first corrects the teacher by the labels of student_task (ExFM)"
    )
    weight: float = Field(
        default=1.0,
        ge=0,
        le=100,
        description="weight of its loss beside the labels' losses; 0: only a bootstrap learns it, with weight 1",
    )
    half_life_examples: int | None = Field(
        default=None, ge=1, description="the weight is halved again each time after this many examples; none: it stays"
    )
    gradient_scale: float = Field(
        default=1.0,
        ge=0,
        le=100,
        description="factor on the gradient that the auxiliary head sends into the trunk (ExFM)",
    )
    temperature: float = Field(default=1.0, gt=0, le=100)
    """The logits of teacher and head are divided by it, only in the loss (Hinton)."""

    def weight_after(self, examples: int) -> float:
        """The weight of its loss after so many examples learnt."""
        if self.half_life_examples is None:
            return self.weight
        return float(self.weight * 0.5 ** (examples / self.half_life_examples))

    @model_validator(mode="after")
    def _has_a_student_task(self) -> Self:
        if self.adapter and self.student_task is None:
            raise ValueError("student_task must be set with adapter, which learns from its labels")
        return self

    @model_validator(mode="after")
    def _has_a_soft_label_to_soften(self) -> Self:
        if self.loss != "soft_label" and self.temperature != 1.0:
            raise ValueError(f"temperature must be 1 with loss {self.loss!r}, which has no soft label")
        return self


FEWEST_ROWS = 100
"""Of a bootstrap: a tenth of fewer shows nothing of what was learnt."""


class BootstrapConfig(FrozenModel):
    """Day zero: what ``graft student bootstrap`` distils before the first example."""

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
