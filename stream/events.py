"""The records that travel through Kafka: frozen, typed, JSON on the wire.

Events come from outside and are validated strictly. The other records are written by graft alone. Feature values are
logged raw, in the order of the feature spec that `spec_id` names: one spec encodes them for training and serving.
"""

from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, StrictFloat, StrictInt, StrictStr

from features import contract
from features.contract import Context, ItemId, UserId

EntityId = contract.EntityId
ContextValue = contract.ContextValue

ImpressionId = Annotated[contract.IdText, Field(description="unique; names the impression in all its records")]
EventTimeMs = Annotated[StrictInt, Field(ge=0, lt=2**53, description="milliseconds since 1970-01-01T00:00:00Z")]
Label = Annotated[
    contract.Int64 | Annotated[StrictFloat, Field(allow_inf_nan=False)],
    Field(description="the label: 0 or 1 of a binary task, a finite number of a regression task"),
]
LoggedContext = Annotated[
    dict[str, StrictInt | StrictFloat | StrictStr],
    Field(description="the impression's context"),
]  # without bounds: logs of earlier versions have values that an event may no longer have
SpecId = Annotated[str, Field(description="names the feature spec whose order `features` has; 16 hexadecimal digits")]
FeatureValue = int | float | str | list[float] | None
"""One raw feature: None is a miss; the feature spec's default takes its place when it is encoded."""

FeatureValues = Annotated[
    list[FeatureValue], Field(description="raw features at impression time, in the spec's order; null is a miss")
]
Labels = Annotated[
    dict[str, float | None],
    Field(description="every task of the project -> its label; null is a regression task without feedback"),
]

Weight = Annotated[
    int,
    Field(
        ge=1,
        exclude_if=lambda weight: weight == 1,
        description="how many impressions it stands for, itself and those like it that [sampling] left out; its "
        "logarithm corrects the log odds. Left out where it is 1",
    ),
]


class EventRecord(BaseModel):
    """What the records have in common."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @classmethod
    def of_checked(cls, fields: dict[str, Any]) -> Self:
        """The record of all its fields, which were checked before, in their order; the dict becomes the record's own.

        It is what pydantic's `model_construct` makes, in a third of the time: each impression needs five of these.
        """
        record, set_field = cls.__new__(cls), object.__setattr__
        set_field(record, "__dict__", fields)
        set_field(record, "__pydantic_fields_set__", set(fields))
        set_field(record, "__pydantic_extra__", None)
        set_field(record, "__pydantic_private__", None)
        return record


class Impression(EventRecord):
    """An item shown to a user. A second one with the same `impression_id` is a duplicate and is dropped."""

    impression_id: ImpressionId
    user_id: UserId
    item_id: ItemId
    event_time_ms: EventTimeMs
    context: Context = Field(default_factory=dict)


class Feedback(EventRecord):
    """What a user did with an impression: the label of one task. The last value within the task's window holds."""

    impression_id: ImpressionId
    task: Annotated[StrictStr, Field(description="a task of the project")]
    value: Label
    event_time_ms: EventTimeMs


class TeacherRequest(EventRecord):
    """An impression with its features at impression time: a row for the teacher to score."""

    impression_id: ImpressionId
    user_id: UserId
    item_id: ItemId
    event_time_ms: EventTimeMs
    context: LoggedContext
    spec_id: SpecId
    features: FeatureValues


class Sampled(EventRecord):
    """Says of an example that nobody was shown it: `[sampling]` drew its item beside a positive impression."""

    of: Annotated[StrictStr, Field(description="the id of that impression, which has the same user, time and context")]
    recipe: Annotated[StrictStr, Field(description="how the item was drawn, such as `uniform` or `popularity^0.75`")]
    log_odds: Annotated[
        float | None,
        Field(
            description="added to log odds that were learnt with such rows it gives those of one item among all that "
            "were known (He et al. 2014); null where the recipe defines none"
        ),
    ]


class Example(EventRecord):
    """An impression joined with its labels: what the learner learns, exactly once. Or a row drawn beside one."""

    impression_id: ImpressionId
    user_id: UserId
    item_id: ItemId
    event_time_ms: EventTimeMs
    context: LoggedContext
    spec_id: SpecId
    features: FeatureValues
    labels: Labels
    weight: Weight = 1
    sampled: Annotated[
        Sampled | None,
        Field(
            exclude_if=lambda sampled: sampled is None,
            description="of a row that nobody was shown: why it is there. Left out of all others",
        ),
    ] = None
