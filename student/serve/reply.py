"""What /score answers."""

import time
from collections.abc import Iterator, Sequence
from typing import Annotated, Literal, NotRequired

from pydantic import Field, with_config
from typing_extensions import TypedDict

from features.contract import ItemId
from features.online.reader import Dated
from features.spec import REQUEST_SOURCES, EntityId, Feature, FeatureSpec, Value

Origin = Literal["request", "stored", "default"]


@with_config(extra="forbid")
class FeatureValue(TypedDict):
    """One feature of one row, as it was scored."""

    feature: str
    value: Annotated[int | float | str | list[float] | None, Field(description="null: a category that is missing")]
    origin: Annotated[
        Origin,
        Field(description="of the request itself, stored in Redis, or the feature's default since there is no other"),
    ]
    age_seconds: Annotated[
        float | None, Field(description="since the event time of what is stored; null where nothing is")
    ]


@with_config(extra="forbid")
class ExplainedItem(TypedDict):
    """One item of a reply."""

    item_id: ItemId
    known: Annotated[bool, Field(description="whether the version remembers labels of it")]
    features: list[FeatureValue]


@with_config(extra="forbid")
class Explanation(TypedDict):
    """What a reply's scores are made of."""

    user_known: Annotated[bool, Field(description="whether the version remembers labels of the user")]
    unknown_items: Annotated[
        list[ItemId], Field(description="the items, each once, of which the version remembers no label")
    ]
    request: Annotated[list[FeatureValue], Field(description="the features of user and context, which all items share")]
    items: Annotated[list[ExplainedItem], Field(description="in the order of the request's item_ids")]


def explanation_of(
    spec: FeatureSpec, dated: Dated, item_ids: Sequence[EntityId], *, user_known: bool, known_B: Sequence[bool]
) -> Explanation:
    """Of the rows of one request, at least one; `known_B`: whether the version remembers each row's item."""
    now_ms = time.time_ns() / 1e6
    shared = [f for f in spec.features if f.source in REQUEST_SOURCES and f.role != "passthrough"]
    of_item = [f for f in spec.features if f.source not in REQUEST_SOURCES and f.role != "passthrough"]
    rows = zip(item_ids, known_B, strict=True)
    return {
        "user_known": user_known,
        "unknown_items": list(dict.fromkeys(item_id for item_id, known in rows if not known)),
        "request": list(_values(shared, dated, 0, now_ms)),
        "items": [
            {"item_id": item_id, "known": known, "features": list(_values(of_item, dated, row, now_ms))}
            for row, (item_id, known) in enumerate(zip(item_ids, known_B, strict=True))
        ],
    }


def _values(features: Sequence[Feature], dated: Dated, row: int, now_ms: float) -> Iterator[FeatureValue]:
    for feature in features:
        value = dated.columns[feature.name][row]
        origin = _origin(feature, value)
        begin_ms = dated.begins_ms[feature.view][row] if origin == "stored" else None
        yield {
            "feature": feature.name,
            "value": feature.default if origin == "default" else value,
            "origin": origin,
            "age_seconds": None if begin_ms is None else max(0.0, (now_ms - begin_ms) / 1000),
        }


def _origin(feature: Feature, value: Value) -> Origin:
    if value is None:
        return "default"
    return "stored" if feature.view else "request"


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
