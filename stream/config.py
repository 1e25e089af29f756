"""How the stream process reads and joins: the `[stream]` table of graft.toml, and the names of the topics."""

from pydantic import Field

from runtime.frozen_model import FrozenModel


class StreamConfig(FrozenModel):
    """How the stream process reads and joins. Times are seconds of event time unless the effect says wall clock."""

    topic_prefix: str = Field(
        default="",
        pattern=r"^[A-Za-z0-9._-]*$",
        description="the beginning of all topics' names, by which several projects share one Kafka",
        json_schema_extra={"allowed": "letters, digits, '.', '_' and '-' alone"},
    )
    partitions: int = Field(
        default=1,
        ge=1,
        le=256,
        description="how many each topic has when graft makes it; as many stream processes can share the work",
    )
    idle_seconds: float = Field(
        default=5.0,
        gt=0,
        description="wall clock: in a pause, an impression closes this long after its longest window has ended",
    )
    max_ahead_seconds: float = Field(
        default=300.0,
        ge=0,
        description="how far an event may be ahead of the broker's clock and of the stream's; beyond it is a dead "
        "letter",
    )
    max_unusable_share: float = Field(
        default=0.9,
        gt=0,
        le=1,
        description="the stream pauses, and commits none of an input's last messages, when a larger share of them "
        "cannot be used; 1: never",
    )
    dedup_seconds: float = Field(
        default=86_400.0,
        gt=0,
        le=1e12,
        description="how long the id of a closed impression is remembered, to drop duplicates",
    )
    commit_seconds: float = Field(default=0.5, gt=0, le=30)
    """Wall clock between two transactions. Readers see new examples after each; more of them cost the broker more."""


class Topics(FrozenModel):
    """The topics of one project, which all have the same partition count."""

    prefix: str = ""

    @property
    def impressions(self) -> str:
        """Impression events, keyed by impression id."""
        return f"{self.prefix}impressions"

    @property
    def feedback(self) -> str:
        """Feedback events, keyed by impression id."""
        return f"{self.prefix}feedback"

    @property
    def examples(self) -> str:
        """Joined examples; written in transactions, read committed."""
        return f"{self.prefix}examples"

    @property
    def teacher_requests(self) -> str:
        """Rows for the teacher to score; written in transactions, read committed."""
        return f"{self.prefix}teacher-requests"

    @property
    def aggregate_updates(self) -> str:
        """What examples add to running aggregates, in the partition of the entity, until it is counted."""
        return f"{self.prefix}aggregate-updates"

    @property
    def join_state(self) -> str:
        """The state log: partition p restores the join of input partition p, and the aggregates of its entities."""
        return f"{self.prefix}join-state"

    @property
    def with_dead_letters(self) -> tuple[str, ...]:
        """The topics with a topic of dead letters. Those of the last two say what their readers may skip."""
        return (self.impressions, self.feedback, self.examples, self.teacher_requests)

    @staticmethod
    def dead_letters(topic: str) -> str:
        """Where the unusable messages of `topic` go."""
        return f"{topic}.dlq"
