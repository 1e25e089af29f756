"""The request contract: what is allowed goes through as it came, all else is named."""

import json
from typing import Any

import pytest

from features.contract import MAX_FAULTS
from features.spec import Feature
from student.serve.requests import MAX_ITEMS, RequestContract, RequestError
from tests.specs import spec_of

INT = "an integer in [-2^63, 2^63)"
TEXT = "a string of 1 to 256 characters"
NUMBER = "a number in [-3.4e38, 3.4e38]"


def context(name: str, dtype: Any, default: Any) -> Feature:
    role = "categorical" if dtype == "str" else "dense"
    return Feature(name=f"context:{name}", source="context", role=role, dtype=dtype, default=default)


SPEC = spec_of(context("hour", "int", 0), context("price", "float", 0.0), context("device", "str", ""))
CONTRACT = RequestContract(SPEC.model_copy(update={"item_id_type": "str"}))


def refused(body: Any) -> dict[str, tuple[Any, str]]:
    """The faults of `body`: field -> (value, allowed)."""
    with pytest.raises(RequestError) as error:
        CONTRACT.parse(json.dumps(body).encode())
    assert error.value.status == 422
    for fault in error.value.faults:
        assert fault["field"] in fault["message"]
        assert fault["allowed"] in fault["message"]
    return {fault["field"]: (fault["value"], fault["allowed"]) for fault in error.value.faults}


def test_a_valid_body_goes_through_as_it_came() -> None:
    body = {"user_id": -(2**63), "item_ids": ["a", "a"], "context": {"hour": 3, "price": 3, "device": ""}}
    assert CONTRACT.parse(json.dumps(body).encode()) == body


def test_context_and_each_of_its_names_may_be_left_out() -> None:
    assert CONTRACT.parse(b'{"user_id":1,"item_ids":["a"]}') == {"user_id": 1, "item_ids": ["a"]}
    assert CONTRACT.parse(b'{"user_id":1,"item_ids":["a"],"context":{}}')["context"] == {}


def test_all_faults_are_named_at_once_each_with_value_and_what_is_allowed() -> None:
    body = {
        "user_id": "7",
        "item_ids": ["a", 3, ""],
        "context": {"hour": 1.5, "price": "3", "device": None, "moon": 1},
        "limit": 5,
    }
    assert refused(body) == {
        "user_id": ("7", INT),
        "item_ids[1]": (3, TEXT),
        "item_ids[2]": ("", TEXT),
        "context.hour": (1.5, INT),
        "context.price": ("3", NUMBER),
        "context.device": (None, "a string of 0 to 256 characters"),
        "context.moon": (1, "an object with any of hour, price, device"),
        "limit": (5, "an object with user_id, item_ids and, optionally, context, version, impression_ids and explain"),
    }


def test_absent_fields_are_named() -> None:
    assert refused({}) == {
        "user_id": (None, INT),
        "item_ids": (None, f"a list of 1 to {MAX_ITEMS} ids, each {TEXT}"),
    }


@pytest.mark.parametrize("count", [0, MAX_ITEMS + 1])
def test_too_few_and_too_many_items_are_refused(count: int) -> None:
    faults = refused({"user_id": 1, "item_ids": ["a"] * count})
    assert list(faults) == ["item_ids"]
    assert len(str(faults["item_ids"][0])) < 250


@pytest.mark.parametrize("user_id", [True, None, 1.0, 2**63, 10**30, [1], {"a": 1}, "1"])
def test_what_is_no_64_bit_integer_is_no_integer_id(user_id: Any) -> None:
    assert list(refused({"user_id": user_id, "item_ids": ["a"]})) == ["user_id"]


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e39", "-1e999", "true", '"1"', "null"])
def test_what_no_float32_holds_is_no_number(number: str) -> None:
    with pytest.raises(RequestError) as error:
        CONTRACT.parse(b'{"user_id":1,"item_ids":["a"],"context":{"price":' + number.encode() + b"}}")
    assert [fault["field"] for fault in error.value.faults] == ["context.price"]


@pytest.mark.parametrize("body", [[], "x", 3, None])
def test_json_that_is_no_object_is_refused(body: Any) -> None:
    assert list(refused(body)) == [""]


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b'{"user_id":1,}', b'"\\ud800"', b"[" * 5000])
def test_what_is_not_json_gets_a_400(body: bytes) -> None:
    with pytest.raises(RequestError) as error:
        CONTRACT.parse(body)
    assert (error.value.status, error.value.faults[0]["allowed"]) == (400, "a JSON object")


def test_of_a_thousand_faults_the_first_hundred_are_named_and_of_many_thousands_none() -> None:
    assert len(refused({"user_id": 1, "item_ids": [1] * MAX_ITEMS})) == MAX_FAULTS
    with pytest.raises(RequestError) as error:
        CONTRACT.parse(json.dumps({f"f{i}": i for i in range(60_000)}).encode())
    (fault,) = error.value.faults
    assert fault["message"].startswith("the body has 60002 faults; allowed is an object with user_id")
