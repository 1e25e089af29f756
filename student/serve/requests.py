"""The contract of /score: a strict validator per feature spec, errors that say what is allowed, ids, and the reply."""

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field, with_config
from pydantic_core import SchemaValidator, ValidationError, core_schema, to_json
from starlette.datastructures import Headers
from starlette.requests import Request
from typing_extensions import TypedDict

from features.contract import ID_TEXT, Context, Fault, IdText, ItemId, UserId, contract_of, faults_of
from features.online.reader import Dated
from features.spec import REQUEST_SOURCES, EntityId, Feature, FeatureSpec, Value
from runtime.tracing import HEADER, trace_id_of

MAX_ITEMS = 1_000
MAX_BODY_BYTES = 1 << 20
_MOST_FAULTS = 2 * MAX_ITEMS
_LONGEST_VERSION = 80

VersionName = Annotated[
    str,
    Field(
        min_length=1,
        max_length=_LONGEST_VERSION,
        description="which version answers: a name, or a number such as v000012; the champion if there is none",
    ),
]


@with_config(extra="forbid")
class ScoreRequest(TypedDict):
    """The body of POST /score: score these items for this user."""

    user_id: UserId
    item_ids: Annotated[
        list[ItemId],
        Field(min_length=1, max_length=MAX_ITEMS, description="the items to be scored; one may stand in it twice"),
    ]
    context: NotRequired[Context]
    version: NotRequired[VersionName]
    impression_ids: NotRequired[
        Annotated[
            list[IdText | None],
            Field(
                max_length=MAX_ITEMS,
                description="the impressions that will show the items, in the order of item_ids, as their events will "
                "name them; null, or none: no impression. A sample of these rows is compared with what is learnt",
            ),
        ]
    ]
    explain: NotRequired[
        Annotated[bool, Field(description="true: the reply also has the values of all features, their origin and age")]
    ]


class RequestError(Exception):
    """A request that gets a 4xx with `faults` in its body."""

    def __init__(self, status: int, faults: Sequence[Fault], headers: Mapping[str, str] | None = None) -> None:
        self.status = status
        self.faults = tuple(faults)
        self.headers = headers
        super().__init__(f"{status}: {self.faults[0]['message']}")


def refusal(
    status: int, field: str, value: Any, allowed: str, message: str, headers: Mapping[str, str] | None = None
) -> RequestError:
    """A RequestError with one fault."""
    return RequestError(status, [Fault(field=field, value=value, allowed=allowed, message=message)], headers)


def error_body(error: RequestError) -> bytes:
    """What /score answers: the first fault, and all of them."""
    return to_json({"error": {**error.faults[0], "faults": error.faults}}, inf_nan_mode="strings")


VERSION_ALLOWED = f"a name of a version, or its number such as v000012, of at most {_LONGEST_VERSION} characters"
_VERSION_SCHEMA = core_schema.str_schema(strict=True, min_length=1, max_length=_LONGEST_VERSION)
_VERSION_ALONE = SchemaValidator(
    core_schema.typed_dict_schema(
        {"version": core_schema.typed_dict_field(_VERSION_SCHEMA, required=False)}, extra_behavior="ignore"
    )
)


def version_named_in(body: bytes | bytearray) -> str | None:
    """The version that the request names, if any; whatever else is wrong with the body its contract says."""
    # JSON may write a letter of the key as \u00 and two digits. Nearly always the rest of the body is read once.
    if b"version" not in body and b"\\u00" not in body:
        return None
    try:
        found: str | None = _VERSION_ALONE.validate_json(body).get("version")
    except ValidationError:
        return None
    return found


_IMPRESSIONS_ALLOWED = f"a list of at most {MAX_ITEMS} ids, each null or {ID_TEXT.allowed}"


class RequestContract:
    """Reads the bodies of /score for one spec."""

    def __init__(self, spec: FeatureSpec) -> None:
        contract = contract_of(spec)
        item = contract.item_id
        self._allowed = {
            "": "an object with user_id, item_ids and, optionally, context, version, impression_ids and explain",
            "user_id": contract.user_id.allowed,
            "item_ids": f"a list of 1 to {MAX_ITEMS} ids, each {item.allowed}",
            "item_ids[]": item.allowed,
            "version": VERSION_ALLOWED,
            "impression_ids": _IMPRESSIONS_ALLOWED,
            "impression_ids[]": f"null or {ID_TEXT.allowed}",
            "explain": "true or false",
        } | contract.allowed_context()
        items = core_schema.list_schema(item.schema, strict=True, min_length=1, max_length=MAX_ITEMS)
        impression = core_schema.nullable_schema(ID_TEXT.schema)
        impressions = core_schema.list_schema(impression, strict=True, max_length=MAX_ITEMS)
        fields = {
            "user_id": core_schema.typed_dict_field(contract.user_id.schema),
            "item_ids": core_schema.typed_dict_field(items),
            "context": core_schema.typed_dict_field(contract.context.schema, required=False),
            "version": core_schema.typed_dict_field(_VERSION_SCHEMA, required=False),
            "impression_ids": core_schema.typed_dict_field(impressions, required=False),
            "explain": core_schema.typed_dict_field(core_schema.bool_schema(strict=True), required=False),
        }
        self._validator = SchemaValidator(core_schema.typed_dict_schema(fields, strict=True, extra_behavior="forbid"))

    def parse(self, body: bytes | bytearray) -> ScoreRequest:
        """The request in `body`; RequestError 400 when it is not JSON, 422 with every fault when it does not fit."""
        try:
            request: ScoreRequest = self._validator.validate_json(body)
        except ValidationError as error:
            raise self._refusal_of(error) from None
        return request

    def check(self, request: Mapping[str, Any]) -> ScoreRequest:
        """The same of a request that another protocol has read."""
        try:
            checked: ScoreRequest = self._validator.validate_python(request)
        except ValidationError as error:
            raise self._refusal_of(error) from None
        return checked

    def _refusal_of(self, error: ValidationError) -> RequestError:
        if error.error_count() > _MOST_FAULTS:  # to describe them all would cost 3 us each
            message = f"the body has {error.error_count()} faults; allowed is {self._allowed['']}"
            return refusal(422, "", None, self._allowed[""], message)
        faults = faults_of(error, "the body", self._allowed)
        if error.errors(include_url=False, include_context=False)[0]["type"] == "json_invalid":
            return RequestError(400, [Fault({**faults[0], "value": None})])
        return RequestError(422, faults)


_REQUEST_ID = re.compile(r"[!-~]{1,128}")
_NAMES = {b"x-request-id", HEADER.encode()}


def request_id_of(request: Request) -> str | None:
    """The id by which a request is found again in its reply's headers, the log and sampled rows."""
    return request_id_in(request.headers)


def request_id_in(headers: Headers) -> str | None:
    """X-Request-ID, or the trace id of traceparent; None where there is neither in an allowed form.

    Both can stand in a log line as they are. traceparent: https://www.w3.org/TR/trace-context/.
    """
    if _NAMES.isdisjoint([name for name, _ in headers.raw]):  # most often; a look-up that finds none is slow
        return None
    request_id = headers.get("x-request-id", "")
    if _REQUEST_ID.fullmatch(request_id):
        return request_id
    return trace_id_of(headers.get(HEADER, ""))


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
