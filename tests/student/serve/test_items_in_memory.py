"""Scores from items in memory are, bit for bit, those of a request that reads, encodes and searches everything anew."""

import asyncio
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.online.item_table import TableLimits
from features.online.reader import OnlineReader
from features.online.redis_layout import EntityLayout, field_name
from features.spec import Feature, hash_category
from lab.embedded import EmbeddedRedis
from runtime.redis import Client, connect
from stream.tasks import TaskSpec
from student.serve.scoring import Sampler, Scoring
from student.serve.swap import ChampionSwap
from student.versions.manifest import StudentConfig
from student.versions.numpy_model import NumpyStudent
from student.versions.registry import Registry
from student.versions.served_posterior import ID_KEY, UNIT, USER_KEY
from student.versions.served_tensors import STD, WEIGHT, of_control, tensor_shapes
from tests.specs import spec_of
from tests.student.posteriors import draft_of, manifest_of


def stored(source: Any, name: str, value_type: str, default: Any) -> Feature:
    role = {"FLOAT": "dense", "STRING": "categorical", "FLOAT_LIST": "embedding"}[value_type]
    dtype = {"FLOAT": "float", "STRING": "str", "FLOAT_LIST": "float_list"}[value_type]
    return Feature(
        name=f"{source}s:{name}", source=source, role=role, dtype=dtype, default=default,
        view=f"{source}s", feature=name, value_type=value_type,
    )  # fmt: skip


SPEC = spec_of(
    stored("item", "price", "FLOAT", 0.5),
    stored("user", "age", "FLOAT", 7.0),
    stored("item", "genre", "STRING", "none"),
    Feature(name="item_id", source="item_id", role="categorical", dtype="int", default=None),
    stored("user", "city", "STRING", ""),
    stored("item", "vector", "FLOAT_LIST", [0.1, 0.2]),
    Feature(name="user_id", source="user_id", role="categorical", dtype="int", default=None),
    Feature(name="context:hour", source="context", role="dense", dtype="int", default=12),
)
TASKS = [
    TaskSpec(name="like", kind="binary", window_seconds=60),
    TaskSpec(name="rating", kind="regression", window_seconds=60),
]
DRAFT = draft_of(SPEC, TASKS, StudentConfig(trunk=[8, 6], tower=4, embedding_dim=3, table_rows=64))
ITEMS, USERS = 24, 4
ITEM, USER = EntityLayout("p", "item_id", "int", []), EntityLayout("p", "user_id", "int", [])
GENRES = [b"pop", b"war", b""]


def publish(registry: Registry, seed: int) -> None:
    """A version of random tensors that remembers some of the ids; its guard heeds the control."""
    rng = np.random.default_rng(seed)
    manifest = manifest_of(DRAFT)
    ids = {
        USER_KEY: [hash_category("user_id", user) for user in range(0, USERS, 2)],
        ID_KEY: [
            *(hash_category("item_id", item) for item in range(seed % 3, ITEMS, 2)),
            *(hash_category("items:genre", genre) for genre in ("pop", "none")),
        ],
    }
    shapes = tensor_shapes(manifest, *map(len, ids.values()))
    tensors = {name: rng.normal(0, 0.4, shape).astype(np.float32) for name, shape in shapes.items()}
    for name in (STD, of_control(STD), UNIT, of_control(UNIT)):
        tensors[name] = np.abs(tensors[name]) + np.float32(0.5)
    for name, tensor in tensors.items():
        if name.endswith("known"):
            tensor[:] = np.abs(tensor)  # variances, among others
        if name.endswith("covariance"):
            tensor[:] = tensor @ tensor.transpose(0, 2, 1)
    tensors[WEIGHT] = np.float32([0.7, 1.0])
    tensors |= {name: np.sort(np.array(hashes, np.uint64)) for name, hashes in ids.items()}
    registry.publish(DRAFT, tensors, {}, {})


def fields(price: float, genre: bytes) -> dict[bytes, bytes]:
    return {
        field_name("items", "price"): b"\x35" + struct.pack("<f", price),
        field_name("items", "genre"): b"\x12" + bytes([len(genre)]) + genre,
        field_name("items", "vector"): b"\x82\x01\x0a\x0a\x08" + struct.pack("<2f", price, -price),
    }


class World(NamedTuple):
    runner: asyncio.Runner
    registry: Registry
    swap: ChampionSwap
    client: Client
    plain: OnlineReader


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    registry = Registry(Path(tmp_path_factory.mktemp("versions")))
    publish(registry, 0)
    with (
        EmbeddedRedis() as redis,
        asyncio.Runner() as runner,
        connect(redis.url) as client,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr("student.serve.swap._READ_SECONDS", 5.0)
        swap = ChampionSwap(registry, redis.url, TableLimits(items=ITEMS - 4, max_age_seconds=1e9))
        runner.run(swap.refresh())
        for user in range(USERS - 1):
            client.hset(USER.key(user), field_name("users", "age"), b"\x35" + struct.pack("<f", user))
        plain = OnlineReader(SPEC, redis.url)
        yield World(runner, registry, swap, client, plain)
        plain.close()
        runner.run(swap.close())


writes = st.tuples(
    st.integers(0, ITEMS - 1), st.one_of(st.none(), st.floats(-1e3, 1e3, width=32)), st.sampled_from(GENRES)
)
requests = st.fixed_dictionaries(
    {
        "user_id": st.integers(0, USERS),
        "item_ids": st.lists(st.integers(0, ITEMS - 1), min_size=1, max_size=ITEMS),
        "context": st.one_of(st.just({}), st.fixed_dictionaries({"hour": st.integers(0, 23)})),
    }
)
steps = st.tuples(st.lists(writes, max_size=12), st.lists(requests, min_size=1, max_size=4), st.booleans())


def write(client: Client, changes: list[tuple[int, float | None, bytes]]) -> None:
    for item, price, genre in changes:
        if price is None:
            client.delete(ITEM.key(item))
        else:
            client.hset(ITEM.key(item), mapping=fields(price, genre))  # type: ignore[arg-type] # bytes are fields, too


def plain_scores(world: World, request: dict[str, Any]) -> dict[str, bytes]:
    """Everything read, encoded and searched anew."""
    assert world.swap.current
    rows = len(request["item_ids"])
    columns = world.plain.read([request["user_id"]] * rows, request["item_ids"], [request["context"]] * rows)
    student = NumpyStudent(*world.registry.load_model(world.swap.current.version))
    return {task: score_B.tobytes() for task, score_B in student.score(SPEC.encode(columns)).items()}


async def served_scores(world: World, request: dict[str, Any]) -> dict[str, bytes]:
    assert world.swap.current
    scoring = Scoring(Sampler(0.0))
    scored = await scoring.score(world.swap.current, request, None)  # type: ignore[arg-type] # of the right fields
    assert not scored.degraded
    assert all(np.isfinite(score_B).all() for score_B in scored.scores.values())
    return {task: score_B.tobytes() for task, score_B in scored.scores.items()}


@given(script=st.lists(steps, min_size=1, max_size=5))
@settings(max_examples=25)
def test_served_scores_are_the_plain_ones_as_soon_as_the_writes_have_been_told(
    world: World, script: list[tuple[list[Any], list[dict[str, Any]], bool]]
) -> None:
    """Writes and requests at once; then the same requests in peace, after one that comes behind what is told."""

    async def step(changes: list[Any], asked: list[dict[str, Any]], *, swaps: bool) -> list[dict[str, bytes]]:
        if swaps:
            publish(world.registry, len(world.registry.versions()))
        together = asyncio.gather(*(served_scores(world, request) for request in asked))
        await asyncio.gather(asyncio.to_thread(write, world.client, changes), together, world.swap.refresh())
        await served_scores(world, asked[0])
        return [await served_scores(world, request) for request in asked]

    for changes, asked, swaps in script:
        served = world.runner.run(step(changes, asked, swaps=swaps))
        assert served == [plain_scores(world, request) for request in asked]


def test_most_items_of_the_test_above_come_from_memory(world: World) -> None:
    """Else it would prove nothing."""
    request = {"user_id": 1, "item_ids": list(range(8)), "context": {}}
    for _ in range(8):  # what is read pushes out what was read long ago, which may be of this request too
        world.runner.run(served_scores(world, request))
    hmget = world.client.info("commandstats")["cmdstat_hmget"]["calls"]
    world.runner.run(served_scores(world, request))
    assert world.client.info("commandstats")["cmdstat_hmget"]["calls"] == hmget + 1
