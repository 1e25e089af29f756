"""The readers give the very values that Feast's own get_online_features gives."""

import asyncio
import math
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from feast.protos.feast.types.Value_pb2 import DoubleList, FloatList
from feast.protos.feast.types.Value_pb2 import Value as Message
from feast.type_map import feast_value_type_to_python_type
from hypothesis import given
from hypothesis import strategies as st

from features.online.async_reader import AsyncOnlineReader
from features.online.reader import OnlineReader
from features.online.redis_layout import DTYPES, UNUSABLE_VALUES, decode_column
from features.repo.store import open_store
from features.spec import Feature

_FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)
_DOUBLES = st.floats(allow_nan=False, allow_infinity=False)
_INT32, _INT64 = st.integers(-(2**31), 2**31 - 1), st.integers(-(2**63), 2**63 - 1)


def by_feast(applied: Any, user_ids: Sequence[int], item_ids: Sequence[str]) -> dict[str, list[Any]]:
    """The stored features of B rows, asked of Feast itself."""
    rows = [{"user_id": u, "item_code": i} for u, i in zip(user_ids, item_ids, strict=True)]
    stored = [f.name for f in applied.spec.features if f.source in ("user", "item")]
    answer = open_store(applied.repo, applied.redis_url).get_online_features(stored, rows, full_feature_names=True)
    values = answer.to_dict()
    return {name: values[name.replace(":", "__")] for name in stored}


def bits(columns: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Floats as their bytes, so that 0.0 and -0.0 differ; a BOOL is an integer to us."""

    def one(value: Any) -> Any:
        if isinstance(value, list):
            return [one(v) for v in value]
        return struct.pack("<d", value) if isinstance(value, float) else int(value) if value is True else value

    return {name: [one(value) for value in values] for name, values in columns.items()}


def test_a_batch_reads_every_type_as_feast_does(applied):
    user_ids = [applied.users[n % len(applied.users)] for n in range(len(applied.items))]
    expected = by_feast(applied, user_ids, applied.items)

    columns = OnlineReader(applied.spec, applied.redis_url).read(user_ids, applied.items, [{}] * len(user_ids))

    assert bits({name: columns[name] for name in expected}) == bits(expected)
    assert columns["user_id"] == user_ids
    assert columns["item_id"] == applied.items
    assert {type(v) for v in columns["users:member"]} == {int}
    assert sum(v is None for v in columns["items:price"]) == 18
    assert columns["users:age"][0] == 0, "the newest row of a user wins over the older one after it"


def test_a_request_reads_every_type_as_feast_does(applied):
    items = [*applied.items[::-1], applied.items[3]]
    expected = by_feast(applied, [2] * len(items), items)

    async def read() -> Any:
        reader = AsyncOnlineReader(applied.spec, applied.redis_url, timeout_seconds=5.0)
        try:
            return await reader.read(2, items, {"device": "tv", "hour": 23})
        finally:
            await reader.close()

    rows = asyncio.run(read())

    size = len(items)
    told = {"user_id": [2] * size, "item_id": items, "context:device": ["tv"] * size, "context:hour": [23] * size}
    encoded = applied.spec.encode(expected | told)
    assert not rows.degraded
    assert rows.batch.dense_BD.tobytes() == encoded.dense_BD.tobytes()
    assert rows.batch.categorical_BC.tobytes() == encoded.categorical_BC.tobytes()


def test_a_request_and_a_batch_encode_to_the_same_bits(applied):
    contexts: list[Any] = [{"device": "tv"}] * len(applied.items)
    batch = OnlineReader(applied.spec, applied.redis_url).read([3] * len(applied.items), applied.items, contexts)

    async def read() -> Any:
        reader = AsyncOnlineReader(applied.spec, applied.redis_url, timeout_seconds=5.0)
        first, from_memory = [await reader.read(3, applied.items, {"device": "tv"}) for _ in range(2)]
        await reader.close()
        return first.batch, from_memory.batch

    learner = applied.spec.encode(batch)
    for scorer in asyncio.run(read()):
        assert scorer.dense_BD.tobytes() == learner.dense_BD.tobytes()
        assert scorer.categorical_BC.tobytes() == learner.categorical_BC.tobytes()
        assert scorer.dense_BD.shape == (len(applied.items), 56)


def test_unknown_entities_are_misses_as_with_feast(applied):
    users, items = [999, 1, 999], ["unheard of", "i1", "i1"]
    columns = OnlineReader(applied.spec, applied.redis_url).read(users, items, [{}] * 3)

    expected = by_feast(applied, users, items)
    assert bits({name: columns[name] for name in expected}) == bits(expected)
    assert columns["users:age"] == [None, 0, None]
    assert columns["user_id"] == users


def test_ids_that_cannot_be_join_keys_are_misses(applied):
    columns = OnlineReader(applied.spec, applied.redis_url).read([2**63, 1, 1], ["i1", "i1", 5], [{}] * 3)

    assert columns["user_id"] == [None, 1, 1]
    assert columns["users:age"] == [None, 0, 0]
    assert columns["item_id"] == ["i1", "i1", None]
    assert columns["items:year"][2] is None


def test_no_rows_are_empty_columns(applied):
    columns = OnlineReader(applied.spec, applied.redis_url).read([], [], [])

    assert columns == {f.name: [] for f in applied.spec.features}
    assert applied.spec.encode(columns).dense_BD.shape == (0, 56)


def feature(value_type: str, role: Any = "passthrough", default: Any = None) -> Feature:
    return Feature(
        name="v:f", source="user", role=role, dtype=DTYPES[value_type], default=default, value_type=value_type
    )


def numbers(kind: str, strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[str, list[Message]]]:
    """Columns of one type, with empty messages among them."""
    member = f"{kind.lower()}_val"
    message = strategy.map(lambda v: Message(**{member: v}))
    return st.tuples(st.just(kind), st.lists(st.one_of(message, st.just(Message())), max_size=6))


@given(
    st.one_of(
        numbers("FLOAT", _FLOATS),
        numbers("DOUBLE", _DOUBLES),
        numbers("INT32", _INT32),
        numbers("INT64", _INT64),
        numbers("BOOL", st.booleans()),
        numbers("STRING", st.text(st.characters(exclude_categories=["Cs"]))),
        numbers("FLOAT_LIST", st.lists(_FLOATS, max_size=40).map(lambda v: FloatList(val=v))),
        numbers("DOUBLE_LIST", st.lists(_DOUBLES, max_size=40).map(lambda v: DoubleList(val=v))),
    )
)
def test_stored_messages_decode_as_protobuf_decodes_them(column):
    value_type, messages = column

    decoded = decode_column(feature(value_type), [message.SerializeToString() for message in messages])

    expected = [feast_value_type_to_python_type(message) for message in messages]
    assert bits({"v:f": decoded}) == bits({"v:f": expected})


@pytest.mark.parametrize("width", [1, 3, 4, 31, 32, 200])
def test_embeddings_decode_at_once_whatever_their_width(width):
    rows = np.random.default_rng(width).normal(size=(5, width)).astype(np.float32).tolist()
    raws = [Message(float_list_val=FloatList(val=row)).SerializeToString() for row in rows]
    embedding = feature("FLOAT_LIST", "embedding", [0.0] * width)

    assert decode_column(embedding, [*raws, None, b""]) == [*rows, None, None]


@pytest.mark.parametrize(
    ("value_type", "message"),
    [
        ("FLOAT", Message(float_val=math.inf)),
        ("FLOAT", Message(float_val=math.nan)),
        ("DOUBLE", Message(double_val=-math.inf)),
        ("FLOAT_LIST", Message(float_list_val=FloatList(val=[1.0, math.nan]))),
        ("FLOAT_LIST", Message(float_list_val=FloatList(val=[1.0]))),
        ("FLOAT_LIST", Message(float_list_val=FloatList(val=[]))),
        ("INT64", Message(float_val=1.0)),
        ("INT64", Message(string_val="1")),
        ("STRING", Message(int64_val=1)),
        ("FLOAT", Message(unix_timestamp_val=1)),
    ],
)
def test_a_stored_value_that_does_not_fit_its_feature_is_a_counted_miss(value_type, message):
    role = "embedding" if value_type == "FLOAT_LIST" else "passthrough"
    before = UNUSABLE_VALUES.labels("v:f")._value.get()

    assert decode_column(feature(value_type, role, [0.0, 0.0]), [message.SerializeToString()]) == [None]
    assert UNUSABLE_VALUES.labels("v:f")._value.get() == before + 1


def test_values_written_under_another_number_type_are_read_as_feast_reads_them():
    messages = [Message(int64_val=-3), Message(double_val=0.1), Message(bool_val=True), Message(float_val=0.5)]

    assert decode_column(feature("FLOAT"), [m.SerializeToString() for m in messages]) == [-3.0, 0.1, 1.0, 0.5]
