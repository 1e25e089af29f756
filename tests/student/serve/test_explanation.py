"""`explain: true`: each feature's value, origin and age, of exactly what was scored."""

import json
import math
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from features.online.redis_layout import EntityLayout, begin_field, field_name
from features.spec import Feature, hash_category
from runtime.redis import connect
from student.versions.registry import Registry
from student.versions.served_posterior import ID_KEY, ID_KNOWN, USER_KEY, USER_KNOWN
from student.versions.served_tensors import of_control
from tests.specs import spec_of
from tests.student.serve.test_server import Endpoint, constant_tensors, draft, serving


def stored(name: str, source: Any, value_type: str, default: Any, role: Any = "dense") -> Feature:
    dtype = {"FLOAT": "float", "STRING": "str", "FLOAT_LIST": "float_list"}[value_type]
    view, feature = name.split(":")
    return Feature(
        name=name, source=source, role=role, dtype=dtype, default=default, view=view, feature=feature,
        value_type=value_type,
    )  # fmt: skip


SPEC = spec_of(
    Feature(name="user_id", source="user_id", role="categorical", dtype="int", default=None),
    stored("users:age", "user", "FLOAT", 7.0),
    Feature(name="item_id", source="item_id", role="categorical", dtype="int", default=None),
    stored("items:genre", "item", "STRING", None, "categorical"),
    stored("items:vector", "item", "FLOAT_LIST", [0.5, 0.25], "embedding"),
    stored("hidden:secret", "item", "STRING", "", "passthrough"),
    Feature(name="context:hour", source="context", role="dense", dtype="int", default=12),
)
AGE_SECONDS = 3_600


def store(redis_url: str) -> None:
    """The user 1 and the item 10, an hour old."""
    since = int(time.time()) - AGE_SECONDS
    begin = b"\x08" + varint(since)
    user, item = EntityLayout("p", "user_id", "int", []), EntityLayout("p", "item_id", "int", [])
    with connect(redis_url) as client:
        client.hset(
            user.key(1),
            mapping={field_name("users", "age"): b"\x35" + struct.pack("<f", 33), begin_field("users"): begin},
        )
        client.hset(item.key(10), mapping={field_name("items", "genre"): b"\x12\x03war", begin_field("items"): begin})


def varint(value: int) -> bytes:
    out = b""
    while value >= 0x80:
        out, value = out + bytes([value & 0x7F | 0x80]), value >> 7
    return out + bytes([value])


@pytest.fixture
def endpoint(tmp_path: Path, redis_url: str) -> Iterator[Endpoint]:
    """A scorer whose version remembers the user 1 and the item 11."""
    registry, of = Registry(tmp_path / "versions"), draft(SPEC)
    tensors = constant_tensors(of, 1)
    for key, known, id_hash in (
        (USER_KEY, USER_KNOWN, hash_category("user_id", 1)),
        (ID_KEY, ID_KNOWN, hash_category("item_id", 11)),
    ):
        tensors[key] = np.array([id_hash], np.uint64)
        for name in (known, of_control(known)):
            tensors[name] = np.concatenate([tensors[name][:1]] * 2)
    registry.publish(of, tensors, {}, {})
    store(redis_url)
    with serving(registry, redis_url) as running:
        running.wait_for("v000001")
        yield running


BODY = {"user_id": 1, "item_ids": [10, 11, 10], "context": {"hour": 3}, "explain": True}


def test_each_feature_has_its_value_origin_and_age(endpoint: Endpoint) -> None:
    status, reply = endpoint.post(BODY)
    assert status == 200
    explained = reply["explanation"]
    assert (explained["user_known"], explained["unknown_items"]) == (True, [10])
    ages = [of.pop("age_seconds") for of in explained["request"]]
    assert explained["request"] == [
        {"feature": "user_id", "value": 1, "origin": "request"},
        {"feature": "users:age", "value": 33.0, "origin": "stored"},
        {"feature": "context:hour", "value": 3, "origin": "request"},
    ]
    assert [ages[0], ages[2]] == [None, None]
    assert AGE_SECONDS <= ages[1] < AGE_SECONDS + 60
    first, second, third = explained["items"]
    assert [(item["item_id"], item["known"]) for item in (first, second, third)] == [
        (10, False),
        (11, True),
        (10, False),
    ]
    assert AGE_SECONDS <= first["features"][1].pop("age_seconds") < AGE_SECONDS + 60
    assert first["features"] == [
        {"feature": "item_id", "value": 10, "origin": "request", "age_seconds": None},
        {"feature": "items:genre", "value": "war", "origin": "stored"},
        {"feature": "items:vector", "value": [0.5, 0.25], "origin": "default", "age_seconds": None},
    ]
    assert second["features"][1] == {"feature": "items:genre", "value": None, "origin": "default", "age_seconds": None}


def test_the_scores_are_those_without_an_explanation(endpoint: Endpoint) -> None:
    plain = endpoint.post({**BODY, "explain": False})[1]
    explained = endpoint.post(BODY)[1]
    assert "explanation" not in plain
    assert plain == {name: value for name, value in explained.items() if name != "explanation"}


def test_a_reply_with_an_explanation_and_one_without_fit_their_schema(endpoint: Endpoint) -> None:
    schemas = Path(__file__).parents[3] / "docs/schemas"
    jsonschema.validate(BODY, json.loads((schemas / "score-request.schema.json").read_bytes()))
    for body in (BODY, {**BODY, "explain": False}):
        jsonschema.validate(endpoint.post(body)[1], json.loads((schemas / "score-reply.schema.json").read_bytes()))


def test_unknown_users_and_items_are_counted(endpoint: Endpoint) -> None:
    before = [endpoint.metric(f'graft_scorer_unknown_ids_total{{of="{of}"}}') for of in ("user", "item")]
    endpoint.post({**BODY, "explain": False})
    endpoint.post({**BODY, "user_id": 2})
    after = [endpoint.metric(f'graft_scorer_unknown_ids_total{{of="{of}"}}') for of in ("user", "item")]
    assert [now - then for now, then in zip(after, before, strict=True)] == [1, 4]


def test_a_time_that_lies_ahead_has_an_age_of_zero(endpoint: Endpoint, redis_url: str) -> None:
    with connect(redis_url) as client:
        key = EntityLayout("p", "user_id", "int", []).key(1)
        client.hset(key, begin_field("users"), b"\x08" + varint(int(time.time()) + 999))
    age = endpoint.post(BODY)[1]["explanation"]["request"][1]["age_seconds"]
    assert age == 0
    with connect(redis_url) as client:
        client.hset(key, begin_field("users"), b"\xff\xff")  # what Feast does not write
    told = endpoint.post(BODY)[1]["explanation"]["request"][1]
    assert (told["value"], told["age_seconds"]) == (33.0, None)
    assert math.isfinite(told["value"])


@pytest.mark.parametrize("value", ["yes", 1, None, [True]])
def test_explain_is_true_or_false(endpoint: Endpoint, value: Any) -> None:
    status, reply = endpoint.post({**BODY, "explain": value})
    assert status == 422
    assert (reply["error"]["field"], reply["error"]["allowed"]) == ("explain", "true or false")
