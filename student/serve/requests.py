"""The request contract of /score: one strict validator per feature spec, errors that say what is allowed, and ids."""

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NotRequired

from pydantic import Field, with_config
from pydantic_core import SchemaValidator, ValidationError, core_schema, to_json
from starlette.datastructures import Headers
from starlette.requests import Request
from typing_extensions import TypedDict

from features.contract import ID_TEXT, Context, Fault, IdText, ItemId, UserId, contract_of, faults_of
from features.spec import FeatureSpec
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
