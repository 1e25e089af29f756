"""The records that travel through Kafka: frozen, typed, JSON on the wire.

Events come from outside and are validated strictly. The other records are written by graft alone. Feature values are
logged raw, in the order of the feature spec that `spec_id` names: one spec encodes them for training and serving.
"""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StrictFloat, StrictInt, StrictStr

MessageId = Annotated[StrictStr, Field(min_length=1, max_length=256)]
EntityId = Annotated[StrictInt, Field(ge=-(2**63), lt=2**63)] | MessageId
"""A user or item id: a signed 64-bit integer or a non-empty string."""

ContextValue = StrictInt | StrictFloat | StrictStr
FeatureValue = int | float | str | list[float] | None
"""One raw feature: None is a miss; the feature spec's default takes its place when it is encoded."""

EventTimeMs = Annotated[StrictInt, Field(ge=0, lt=2**53, description="milliseconds since 1970-01-01T00:00:00Z")]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Impression(_Record):
    """An item shown to a user. `impression_id` is unique; a second one with the same id is a duplicate."""

    impression_id: MessageId
    user_id: EntityId
    item_id: EntityId
    event_time_ms: EventTimeMs
    context: dict[str, ContextValue] = Field(default_factory=dict)


class Feedback(_Record):
    """What a user did with an impression: the label of one task. The last value within the window holds."""

    impression_id: MessageId
    task: StrictStr
    value: StrictFloat | StrictInt
    event_time_ms: EventTimeMs


class TeacherRequest(_Record):
    """An impression with its features at impression time: a row for the teacher to score."""

    impression_id: MessageId
    user_id: EntityId
    item_id: EntityId
    event_time_ms: EventTimeMs
    context: dict[str, ContextValue]
    spec_id: str
    features: list[FeatureValue]


class Example(_Record):
    """An impression joined with its labels: what the learner learns, exactly once.

    `labels` has every task of the project; None is a regression task without feedback.
    """

    impression_id: MessageId
    user_id: EntityId
    item_id: EntityId
    event_time_ms: EventTimeMs
    context: dict[str, ContextValue]
    spec_id: str
    features: list[FeatureValue]
    labels: dict[str, float | None]
