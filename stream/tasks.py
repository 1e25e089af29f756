"""What a student learns to predict, and how long an impression waits for its feedback."""

import math
from typing import Literal, Self

from pydantic import Field, model_validator

from runtime.frozen_model import FrozenModel

TaskKind = Literal["binary", "regression"]

LARGEST_VALUE = 1e9
"""The largest size of a regression's label or teacher value where no range is declared. A week is 6e8 milliseconds, so
what people rate, spend or watch is below; its square times all rows of a step still has a float32."""

_LARGEST_BOUND = 1e12  # the squares of a step's labels still have a float32


class TaskSpec(FrozenModel):
    """One label of an impression.

    A binary task without feedback when its attribution window closes is 0; a regression task without feedback has no
    label (None) and is masked in the loss.
    """

    name: str = Field(
        pattern=r"^[a-z][a-z0-9_]*$",
        description="the task's name in feedback events and in replies",
        json_schema_extra={"allowed": "a lower-case letter, then lower-case letters, digits and '_'"},
    )
    kind: TaskKind = Field(description="binary: the label is 0 or 1; regression: the label is a number")
    window_seconds: float = Field(
        gt=0, description="attribution window: feedback counts up to this event time after the impression"
    )
    served: bool = Field(default=True, description="whether replies have a score for this task")
    teacher_reference: str | None = Field(
        default=None,
        description="the teacher task with which the evaluation compares it; none: the first that is distilled into it",
    )
    range: tuple[float, float] | None = Field(
        default=None,
        description="of a regression: the lowest and the highest label, in its unit; other feedback is a dead letter. "
        f"none: [-{LARGEST_VALUE:g}, {LARGEST_VALUE:g}], and the learner leaves out labels far from all it has seen",
    )

    def allows(self, value: float) -> bool:
        """Whether a label may be `value`: 0 or 1 of a binary task, within `bounds` of a regression."""
        low, high = self.bounds
        return value in (low, high) if self.kind == "binary" else low <= value <= high

    @property
    def bounds(self) -> tuple[float, float]:
        """The lowest and the highest label."""
        if self.kind == "binary":
            return 0.0, 1.0
        return self.range or (-LARGEST_VALUE, LARGEST_VALUE)

    @model_validator(mode="after")
    def _has_a_range_of_numbers(self) -> Self:
        if self.range is None:
            return self
        low, high = self.range
        if self.kind == "binary":
            raise ValueError(f"range must not be set for the binary task {self.name}, whose labels are 0 and 1")
        if not (math.isfinite(low) and math.isfinite(high) and low < high and max(-low, high) <= _LARGEST_BOUND):
            raise ValueError(
                f"range of the task {self.name} must be two numbers, the lower one first, "
                f"of a size up to {_LARGEST_BOUND:g}, got [{low:g}, {high:g}]"
            )
        return self
