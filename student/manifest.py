"""What a published version says of itself: manifest.json in its folder. Imported by learner and scorer alike."""

from pydantic import BaseModel, ConfigDict, Field

from features.spec import FeatureSpec
from stream.tasks import TaskSpec
from student.config import StudentConfig

FORMAT = 1


class ArmMetrics(BaseModel):
    """Progressive metrics of one arm on one task, over `count` labelled examples; None where undefined."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    count: int
    auc: float | None = None
    log_loss: float | None = None
    rmse: float | None = None


class Draft(BaseModel):
    """What the learner says of a version; the registry adds the rest when it publishes it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    examples: int = Field(ge=0, description="examples learnt since the first version")
    offsets: dict[str, int] = Field(description="'partition' -> offset in the examples topic up to which is learnt")
    spec: FeatureSpec
    tasks: list[TaskSpec]
    student: StudentConfig
    teacher_version: str | None
    metrics: dict[str, dict[str, ArmMetrics]] = Field(description="task -> arm (student, control, teacher, item_mean)")


class Manifest(Draft):
    """An immutable published student.

    Files beside it: model.safetensors (the served student: what the scorer reads) and learner.safetensors (both arms,
    optimizer, normaliser, replay buffer, random state, evaluation: what the learner continues from).
    """

    format: int = FORMAT
    version: str = Field(pattern=r"^v\d{6,}$")
    parent: str | None = Field(description="the newest version before this one")
    created_at_ms: int
    sha256: dict[str, str] = Field(description="file name -> hex digest")
