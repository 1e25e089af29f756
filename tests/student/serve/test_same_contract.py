"""The stream and the scorer hold ids and context to one contract: what is learnt can be asked for, and the reverse."""

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from features.spec import Feature
from runtime.errors import InvalidInputError
from stream.join.validation import Validator
from stream.tasks import TaskSpec
from student.serve.requests import RequestContract, RequestError
from tests.specs import spec_of

IDS = ("user_id", "item_id")
CONTEXT: dict[str, Any] = {"hour": "int", "price": "float", "device": "str"}


SPEC = spec_of(
    *(
        Feature(name=f"context:{name}", source="context", role="passthrough", dtype=dtype, default=None)
        for name, dtype in CONTEXT.items()
    )
)
TASKS = [TaskSpec(name="like", kind="binary", window_seconds=1)]
SPECS = [SPEC.model_copy(update=types) for types in ({"item_id_type": "str"}, {"user_id_type": "str"})]
VALIDATORS, CONTRACTS = [Validator(s, TASKS) for s in SPECS], [RequestContract(s) for s in SPECS]

INTEGERS = st.integers() | st.sampled_from([0, -0, 2**63 - 1, 2**63, -(2**63), -(2**63) - 1, 2**64, 10**39, 10**400])
NUMBERS = ["NaN", "Infinity", "-Infinity", "-0", "-0.0", "1e39", "3.4e38", "-3.4e38", "3.5e38", "1e999"]
NUMBERS += ["1E2", "01", "1."]
TEXTS = st.text(max_size=5) | st.sampled_from(["", "a" * 256, "a" * 257, "é" * 256, "é" * 257, "\x00", "\U0001f600"])
ODD_TEXTS = ['"\\ud800"', '"\\udc00x"', '"\\ud83d\\ude00"', '"a\\u0000b"', '"\x07"', '"\\x"', "'a'"]
SCALARS = (
    INTEGERS.map(str)
    | st.floats().map(json.dumps)
    | TEXTS.map(json.dumps)
    | TEXTS.map(lambda text: json.dumps(text, ensure_ascii=False))
    | st.sampled_from([*NUMBERS, *ODD_TEXTS, "true", "false", "null", "[]", "{}", '["a"]', '{"a":1}', ""])
)
ODD_BYTES = st.binary(max_size=4).filter(lambda raw: not set(raw) & set(b',:"[]{}'))  # else they are several values
VALUES = SCALARS.map(lambda text: text.encode("utf-8", "surrogatepass")) | ODD_BYTES
LIKELY: dict[str, st.SearchStrategy[bytes]] = {
    "user_id": st.sampled_from([b"7", b'"u"']),
    "item_id": st.sampled_from([b"7", b'"i"']),
    "hour": st.integers(-(2**63), 2**63 - 1).map(lambda n: b"%d" % n),
    "price": st.floats(width=32).map(lambda x: json.dumps(x).encode()) | st.integers().map(lambda n: b"%d" % n),
    "device": TEXTS.map(lambda text: json.dumps(text).encode()),
    "day": st.just(b"1"),
}


def likely_or_not(draw: st.DrawFn, name: str) -> bytes:
    """Mostly a value that may well be allowed, sometimes any."""
    return draw(VALUES if draw(st.integers(0, 7)) == 7 else LIKELY[name])


@st.composite
def contexts(draw: st.DrawFn) -> bytes:
    """An object of declared names, some of them twice, seldom of others; seldom something else."""
    if draw(st.integers(0, 19)) == 19:
        return draw(VALUES)
    names = draw(st.lists(st.sampled_from([*CONTEXT] * 5 + ["day"]), max_size=4))
    entries = [(name, likely_or_not(draw, name)) for name in names]
    return b"{" + b",".join(b'"%b":%b' % (name.encode(), value) for name, value in entries) + b"}"


@st.composite
def rows(draw: st.DrawFn) -> list[tuple[str, bytes]]:
    """The fields of a row in some order, as JSON: mostly one of each."""
    fields = draw(st.permutations([*IDS, "context"]))
    if draw(st.integers(0, 7)) == 7:
        fields = [*fields, draw(st.sampled_from(fields))]
    return [(name, draw(contexts()) if name == "context" else likely_or_not(draw, name)) for name in fields]


def streamed(validator: Validator, row: list[tuple[str, bytes]]) -> dict[str, Any] | None:
    """What the stream makes of the row; None when it refuses."""
    fields = b",".join(b'"%b":%b' % (name.encode(), value) for name, value in row)
    try:
        event = validator.impression(b'{"impression_id":"i","event_time_ms":1,%b}' % fields)
    except InvalidInputError:
        return None
    return {"user_id": event.user_id, "item_id": event.item_id, "context": event.context}


def scored(contract: RequestContract, row: list[tuple[str, bytes]]) -> dict[str, Any] | None:
    """What the scorer makes of the row; None when it refuses."""
    as_asked = [(b"item_ids", b"[%b]" % value) if name == "item_id" else (name.encode(), value) for name, value in row]
    try:
        request = contract.parse(b"{" + b",".join(b'"%b":%b' % field for field in as_asked) + b"}")
    except RequestError:
        return None
    (item_id,) = request["item_ids"]
    return {"user_id": request["user_id"], "item_id": item_id, "context": request.get("context", {})}


@pytest.mark.parametrize("number", [0, 1])
@settings(deadline=None, max_examples=400)
@given(row=rows())
@example([("user_id", b"7"), ("item_id", b'"i"'), ("context", b'{"device":"' + b"x" * 300 + b'"}')])
@example([("user_id", b"7"), ("item_id", b'"i"'), ("context", b'{"hour":9223372036854775808}')])
@example([("user_id", b"7"), ("item_id", b'"i"'), ("context", b'{"price":1e39}')])
@example([("user_id", b"7"), ("item_id", b'"i"'), ("context", b'{"price":3,"hour":3,"price":3.0}')])
@example([("user_id", b"7"), ("item_id", b'"i"'), ("context", b'{"hour":null,"hour":3}')])
@example([("user_id", b"null"), ("user_id", b"7"), ("item_id", b'"i"'), ("context", b"{}")])
def test_the_stream_accepts_what_the_scorer_accepts_and_reads_the_same(
    number: int, row: list[tuple[str, bytes]]
) -> None:
    ours, theirs = streamed(VALIDATORS[number], row), scored(CONTRACTS[number], row)
    assert repr(ours) == repr(theirs)  # 3 and 3.0 differ, and so does the order of a context


@pytest.mark.parametrize(
    "context",
    [{"hour": 3, "price": 3, "device": ""}, {"price": -3.4e38}, {"hour": -(2**63), "device": "é" * 256}, {}],
)
def test_what_lies_within_the_bounds_passes_both_unchanged(context: dict[str, Any]) -> None:
    row = [("user_id", b"7"), ("item_id", b'"i"'), ("context", json.dumps(context).encode())]
    expected = {"user_id": 7, "item_id": "i", "context": context}
    assert repr(streamed(VALIDATORS[0], row)) == repr(scored(CONTRACTS[0], row)) == repr(expected)


def test_a_refusal_says_in_both_places_the_same_about_what_is_allowed() -> None:
    row = {"user_id": "x", "context": {"hour": "h", "price": "p", "device": "x" * 257, "day": 1}}
    with pytest.raises(RequestError) as theirs:
        CONTRACTS[0].parse(json.dumps({**row, "item_ids": ["i"]}).encode())
    with pytest.raises(InvalidInputError) as ours:
        VALIDATORS[0].impression(json.dumps({**row, "item_id": "i", "impression_id": "i", "event_time_ms": 1}).encode())
    assert len(theirs.value.faults) == 5
    for fault in theirs.value.faults:
        assert fault["message"] in str(ours.value)
