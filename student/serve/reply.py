"""What /score answers."""

from typing import Annotated, NotRequired

from pydantic import Field, with_config
from typing_extensions import TypedDict

from features.contract import ItemId
from student.serve.explanation import Explanation


@with_config(extra="forbid")
class ScoreReply(TypedDict):
    """The reply to POST /score: one version's scores of the request's items."""

    model_version: Annotated[str, Field(description="the version that made all scores of this reply")]
    degraded: Annotated[
        bool,
        Field(
            description="true: Redis did not answer in time, and stored features took their defaults, but for those of "
            "items that are in the scorer's memory"
        ),
    ]
    item_ids: Annotated[list[ItemId], Field(description="the request's item_ids, in its order")]
    scores: Annotated[
        dict[str, list[float | None]],
        Field(
            description="served task -> one score per item, in the order of item_ids: of a binary task a probability, "
            "where negatives were drawn one within the mixture of positives and drawn items; of a regression task the "
            "label's unit; null where the model overflowed"
        ),
    ]
    explanation: NotRequired[Annotated[Explanation, Field(description="only where the request has explain: true")]]
