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

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    kind: TaskKind
    window_seconds: float = Field(gt=0, description="attribution window, in event time after the impression")
    served: bool = True
    teacher_reference: str | None = Field(
        default=None,
        description="the teacher task that the evaluation compares it with; None: the first that is distilled into it",
    )
