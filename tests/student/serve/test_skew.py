"""Training and serving see the same vector, bit for bit."""

import asyncio
import struct
from collections.abc import Mapping

import numpy as np
import pytest
from pydantic_core import to_json

from features.online.async_reader import AsyncOnlineReader
from features.online.reader import OnlineReader
from features.online.redis_layout import EntityLayout, field_name
from features.spec import Feature, FeatureBatch
from runtime.redis import connect
from stream.events import Example
from student.serve.requests import RequestContract
from tests.specs import spec_of

FLOATS = struct.pack("<3f", 0.1, -2.5, 1e-7)
STORED = {
    "FLOAT": b"\x35" + struct.pack("<f", 0.1),
    "DOUBLE": b"\x29" + struct.pack("<d", 1 / 3),
    "INT64": b"\x20\x96\x01",  # 150
    "STRING": b"\x12\x05drama",
    "FLOAT_LIST": b"\x82\x01\x0e\x0a\x0c" + FLOATS,
}
DTYPES = {"FLOAT": "float", "DOUBLE": "float", "INT64": "int", "STRING": "str", "FLOAT_LIST": "float_list"}


def stored(source: str, value_type: str) -> Feature:
    roles = {"STRING": "categorical", "FLOAT_LIST": "embedding"}
    defaults = {"STRING": "none", "FLOAT_LIST": [0.5, 0.5, 0.5]}
    return Feature(
        name=f"{source}s:{value_type}", source=source, role=roles.get(value_type, "dense"), dtype=DTYPES[value_type],
        default=defaults.get(value_type, -1.0), view=f"{source}s", feature=value_type, value_type=value_type,
    )  # fmt: skip


SPEC = spec_of(
    *(stored(source, value_type) for source in ("user", "item") for value_type in STORED),
    Feature(name="user_id", source="user_id", role="categorical", dtype="int", default=None),
    Feature(name="item_id", source="item_id", role="categorical", dtype="str", default=None),
    Feature(name="context:hour", source="context", role="categorical", dtype="int", default=0),
    Feature(name="context:price", source="context", role="dense", dtype="float", default=9.75),
).model_copy(update={"item_id_type": "str"})
USER, ITEMS = 7, ["a", "unknown", "b", "a"]
CONTEXTS = [{"hour": 23, "price": 0.3}, {"price": 3}, {}]


def fill(redis_url: str) -> None:
    users, items = (EntityLayout("p", "user_id", "int", []), EntityLayout("p", "item_id", "str", []))
    with connect(redis_url) as client:
        for view, key in (("users", users.key(USER)), ("items", items.key("a"))):
            client.hset(key, mapping={field_name(view, name): message for name, message in STORED.items()})
        client.hset(items.key("b"), field_name("items", "STRING"), b"\x12\x03war")


def trained(redis_url: str, item_id: str, context: Mapping[str, float]) -> FeatureBatch:
    """The vector that the learner encodes from the example that the stream logged."""
    reader = OnlineReader(SPEC, redis_url)
    [row] = SPEC.rows_of(reader.read([USER], [item_id], [context]))
    reader.close()
    example = Example(
        impression_id="i", user_id=USER, item_id=item_id, event_time_ms=0, context=dict(context),
        spec_id=SPEC.spec_id, features=row, labels={},
    )  # fmt: skip
    logged = Example.model_validate_json(example.model_dump_json())
    return SPEC.encode(SPEC.columns_of([logged.features]))


async def served(redis_url: str, context: Mapping[str, float]) -> FeatureBatch:
    """The vectors of one request, as /score makes them."""
    request = RequestContract(SPEC).parse(to_json({"user_id": USER, "item_ids": ITEMS, "context": context}))
    reader = AsyncOnlineReader(SPEC, redis_url, timeout_seconds=5.0)
    rows = await reader.read(request["user_id"], request["item_ids"], request["context"])
    await reader.close()
    assert not rows.degraded
    return rows.batch


@pytest.mark.parametrize("context", CONTEXTS)
def test_a_logged_example_and_a_request_give_the_same_bits(redis_url: str, context: Mapping[str, float]) -> None:
    fill(redis_url)
    request = asyncio.run(served(redis_url, context))
    for i, item_id in enumerate(ITEMS):
        example = trained(redis_url, item_id, context)
        assert example.dense_BD.tobytes() == request.dense_BD[i].tobytes()
        assert example.categorical_BC.tobytes() == request.categorical_BC[i].tobytes()
    dense = dict(zip(SPEC.dense_names, request.dense_BD.T.tolist(), strict=True))
    assert dense["users:INT64"] == [150.0] * 4
    assert dense["items:FLOAT"] == [np.float32(0.1), -1.0, -1.0, np.float32(0.1)]
    assert dense["items:FLOAT_LIST[1]"] == [-2.5, 0.5, 0.5, -2.5]
