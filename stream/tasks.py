"""What a student learns to predict, and how long an impression waits for its feedback."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

TaskKind = Literal["binary", "regression"]


class TaskSpec(BaseModel):
    """One label of an impression.

    A binary task without feedback when its attribution window closes is 0; a regression task without feedback has no
    label (None) and is masked in the loss.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(
        pattern=r"^[a-z][a-z0-9_]*$",
        description="the task of feedback events, and the key of its scores",
        json_schema_extra={"allowed": "a lower-case letter, then lower-case letters, digits and '_'"},
    )
    kind: TaskKind = Field(description="binary: the label is 0 or 1; regression: the label is a number")
    window_seconds: float = Field(
        gt=0, description="attribution window: feedback counts up to this event time after the impression"
    )
    served: bool = Field(default=True, description="whether the endpoint answers with this task")
    teacher_reference: str | None = Field(
        default=None,
        description="the teacher task that the evaluation compares it with; none: the first that is distilled into it",
    )
