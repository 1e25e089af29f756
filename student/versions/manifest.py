"""What a published version says of itself: manifest.json in its folder, with the `[student]` table of graft.toml."""

from typing import Self

from pydantic import AliasChoices, Field, model_validator

from features.spec import FeatureSpec
from runtime.frozen_model import FrozenModel
from stream.tasks import TaskSpec
from student.versions.gate import GateRecord


class StudentConfig(FrozenModel):
    """Shape and learning of both arms; their shared weights start equal."""

    trunk: list[int] = Field(
        default=[64, 32], min_length=1, description="the widths of the layers that all tasks share"
    )
    cross_layers: int = Field(default=0, ge=0, le=8)
    """Cross layers of DCN-v2 between the inputs and the trunk: they cost a step's time and gained nothing."""
    tower: int = Field(default=16, ge=1, description="the width of each task's own layer")
    embedding_dim: int = Field(default=8, ge=1, description="the width of each categorical column's embedding")
    table_rows: int = Field(default=65_536, ge=2, description="rows of the hashed embedding table; row 0: missing")
    learning_rate: float = Field(
        default=0.01, gt=0, le=10, description="Adam's learning rate, for all weights but the embeddings"
    )
    embedding_learning_rate: float = Field(default=0.05, gt=0, le=10)
    """Row-wise Adagrad's learning rate, for the embeddings; it adapts itself to each row."""
    micro_batch: int = Field(default=32, ge=1, description="new examples that a step of the networks learns")
    replay_batches: int = Field(default=1, ge=0)
    """Micro-batches of past examples added to a step, against forgetting; more double its cost."""
    replay_capacity: int = Field(default=16_384, ge=0)
    """Past examples kept to be replayed, a uniform sample of all."""
    remembered_ids: int = Field(
        default=65_536,
        ge=1_000,
        description="how many users the posterior remembers, and how many items and categories; the oldest leaves",
    )
    seed: int = Field(
        default=7,
        description="seed of first weights, replay and bootstrap: same seed and same log give the same weights",
    )

    @model_validator(mode="after")
    def _replays_what_it_keeps(self) -> Self:
        if self.replay_batches and not self.replay_capacity:
            raise ValueError(f"replay_batches must be 0 with replay_capacity 0, got {self.replay_batches}")
        return self


FORMAT = 7

YEAR_10000_MS = 253_402_300_800_000
"""No time that is told as a date comes later."""

BOOTSTRAPPED = "bootstrapped_rows"
FORMERLY_BOOTSTRAPPED = "bootstrapped_pairs"
"""The former name of the same number, in manifests and learner states: still read, no longer written."""


class ArmMetrics(FrozenModel):
    """Progressive metrics of one arm on one task, over `count` examples with a label and a prediction.

    None where undefined or of the other kind of task; formulas: student/evaluate/metrics.py, docs/metrics.md.
    """

    count: int
    positives: int | None = None
    label_mean: float | None = None
    prediction_mean: float | None = Field(default=None, description="of probabilities (binary) or values (regression)")
    auc: float | None = None
    gauc: float | None = Field(default=None, description="within blocks of 2,000 examples")
    auc_against_drawn: float | None = Field(
        default=None, description="in place of `auc`, where negatives were drawn that nobody was shown"
    )
    gauc_against_drawn: float | None = Field(default=None, description="the same in place of `gauc`")
    log_loss: float | None = Field(default=None, description="nats")
    normalized_entropy: float | None = None
    calibration: float | None = Field(default=None, description="predicted / observed positives")
    ece: float | None = None
    age_examples: float | None = Field(
        default=None, description="of the served arms: the mean number of examples between the version and the example"
    )
    rmse: float | None = None
    r2: float | None = None

    def against_drawn(self) -> "ArmMetrics":
        """The same of examples among which are drawn negatives: their AUCs have names of their own."""
        return self.model_copy(
            update={"auc": None, "gauc": None, "auc_against_drawn": self.auc, "gauc_against_drawn": self.gauc}
        )


Metrics = dict[str, dict[str, ArmMetrics]]
"""Task name -> arm (student.evaluate.arms.ALL_ARMS) -> metrics; an arm without any example is left out."""


class Draft(FrozenModel):
    """What the learner says of a version; the registry adds the rest when it publishes it."""

    examples: int = Field(ge=0, description="examples learnt since the first version")
    learnt_until_ms: int = Field(
        default=0, ge=0, description="event time at which the last of them had closed; 0 before the first"
    )
    bootstrapped_rows: int = Field(
        default=0,
        ge=0,
        validation_alias=AliasChoices(BOOTSTRAPPED, FORMERLY_BOOTSTRAPPED),
        description="rows distilled into the student before the first example; the control had none",
    )
    offsets: dict[str, int] = Field(description="'partition' -> offset in the examples topic up to which is learnt")
    topic_id: str | None = Field(
        default=None, description="Kafka's id of the examples topic that `offsets` count in; none: not known"
    )
    spec: FeatureSpec
    tasks: list[TaskSpec]
    student: StudentConfig
    teacher_tasks: list[str] = Field(
        default=[], description="the teacher's tasks, whose mean logits the posterior sees"
    )
    teacher_version: str | None
    teacher_generation: str | None = Field(
        default=None, description="digest of all that made the teacher's logits; none: of an earlier release"
    )
    served_by: list[str] = Field(
        default=[], description="versions before this one whose predictions count as served for later examples"
    )
    gate: GateRecord | None = Field(
        default=None, description="the gate's verdict just before this version was published; none: it was off"
    )
    metrics: Metrics = Field(description="over all examples")
    slices: dict[str, Metrics] = Field(default={}, description="over the slices recent, new_items, new_users")

    @property
    def met_drawn(self) -> bool:
        """Whether it has learnt drawn negatives, which nobody was shown: its probabilities are of the mixture."""
        return any(arm.auc_against_drawn is not None for arms in self.metrics.values() for arm in arms.values())


class Manifest(Draft):
    """An immutable published student.

    Files beside it: model.safetensors (the served student: what the scorer reads), learner.safetensors (both arms,
    optimizer, normaliser, replay buffer, random state, evaluation: what the learner continues from) and
    served_metrics.safetensors (the sums of the served metrics, which also depend on when versions were published).
    """

    format: int = FORMAT
    version: str = Field(pattern=r"^v\d{6,}$")
    parent: str | None = Field(description="the newest version before this one")
    created_at_ms: int = Field(ge=0, lt=YEAR_10000_MS)
    sha256: dict[str, str] = Field(description="file name -> hex digest")
