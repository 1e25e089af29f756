"""How the student is distilled, bootstrapped and published: three tables of graft.toml."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class _Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DistillationConfig(_Config):
    """How one teacher task is distilled.

    Through an auxiliary head on `student_task`'s tower, or through a non-serving tower of its own where there is none.
    Losses are those of student/learn/losses.py. "direct" is for comparisons: it has no auxiliary head, the served head
    of `student_task` itself learns the soft labels beside its hard ones.
    """

    teacher_task: str = Field(description="the teacher task to distil, of teacher.tasks")
    student_task: str | None = Field(
        default=None, description="the task whose tower carries the auxiliary head; none: a tower of its own"
    )
    loss: Literal["soft_label", "logit_mse", "listwise", "pairwise", "direct"] = Field(
        default="soft_label", description="what the auxiliary head minimises (docs/decisions/006-distillation.md)"
    )
    adapter: bool = Field(
        default=False, description="whether a network first corrects the teacher by the labels of student_task (ExFM)"
    )
    weight: float = Field(default=1.0, ge=0, le=100, description="of its loss beside those of the labels")
    gradient_scale: float = Field(
        default=1.0, ge=0, le=100, description="times the gradient that the auxiliary head sends into the trunk (ExFM)"
    )
    label_scale: float = Field(default=1.0, gt=0, le=100, description="times the soft label (ExFM)")
    temperature: float = Field(
        default=1.0, gt=0, le=100, description="divides the logits of teacher and head, in the loss alone (Hinton)"
    )
    schedule: Literal["constant", "decay", "off"] = Field(
        default="constant", description="how the weight goes on: as it is, halved again and again, or 0"
    )
    decay_examples: int = Field(default=0, ge=0, description="decay: examples after which the weight is halved")
    max_wait_seconds: float = Field(
        default=3.0, ge=0, description="wall clock that a micro-batch waits for logits that the teacher still owes"
    )

    @property
    def reads_labels(self) -> bool:
        """Whether what it learns is measured in the unit of its student task's labels."""
        return self.adapter or self.loss == "direct"

    def pointwise(self) -> "DistillationConfig":
        """The same with a loss that fixes the level too: a soft label in place of a ranking."""
        ranking = self.loss in ("listwise", "pairwise")
        return self.model_copy(update={"loss": "soft_label"}) if ranking else self

    @model_validator(mode="after")
    def _has_a_student_task(self) -> Self:
        if self.student_task is None and self.reads_labels:
            option = "adapter" if self.adapter else "loss 'direct'"
            raise ValueError(f"student_task must be set with {option}: its labels or its head are what that is about")
        return self

    @model_validator(mode="after")
    def _options_have_an_effect(self) -> Self:
        if self.loss not in ("soft_label", "direct") and (self.label_scale, self.temperature) != (1.0, 1.0):
            raise ValueError(f"label_scale and temperature must be 1 with loss {self.loss!r}: it has no soft label")
        if self.loss == "direct" and self.gradient_scale != 1.0:
            raise ValueError("gradient_scale must be 1 with loss 'direct': it has no auxiliary head, use weight")
        return self

    @model_validator(mode="after")
    def _decays_over_a_span(self) -> Self:
        if self.schedule == "decay" and self.decay_examples < 1:
            raise ValueError(f"decay_examples must be at least 1 for schedule 'decay', got {self.decay_examples}")
        if self.schedule != "decay" and self.decay_examples > 0:
            raise ValueError(f"decay_examples must be 0 for schedule {self.schedule!r}, got {self.decay_examples}")
        return self


FEWEST_PAIRS = 100
"""Of a bootstrap: a tenth of fewer shows nothing of what was learnt."""


class BootstrapConfig(_Config):
    """Day zero: what ``graft student bootstrap`` distils before the first example."""

    pairs: int = Field(
        default=50_000,
        ge=FEWEST_PAIRS,
        description="distinct rows of a user and an item that the teacher scores; a tenth of them is held out",
    )
    steps: int = Field(default=1_000, ge=1, description="optimizer steps, each of as many rows as a step of the stream")


class PublishConfig(_Config):
    """When a version is published, and how many stay."""

    every_seconds: float = Field(
        default=5.0, gt=0, description="wall clock between two versions; a version ends with a whole step"
    )
    keep: int = Field(default=50, ge=2, description="versions that stay: the newest, the champion and its parent")
