"""What it costs to read features: Feast's get_online_features against the readers that decode Feast's hashes.

    python benchmarks/feature_reader.py [--seconds 2]

One run on one machine, Redis and reader on the same cores. 2,000 users (12 floats, a list of 32) and 2,000 items
(8 floats, a list of 32) are materialized by Feast. Times are per call, after `gc.freeze()`, without which Feast's p99
is ten times as high. Every answer is compared with Feast's before it is timed.
"""

import argparse
import asyncio
import gc
import platform
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from features.async_reader import AsyncOnlineReader
from features.config import FeaturesConfig
from features.item_table import TableLimits
from features.reader import OnlineReader
from features.store import apply, materialize, open_store
from lab.embedded import EmbeddedRedis

ENTITIES, LIST = 2_000, 32
FLOATS = {"user": 12, "item": 8}

SETTINGS = """
project: benchmark
provider: local
registry: data/registry.db
entity_key_serialization_version: 3
online_store: {type: redis}
"""
DEFINITIONS = f"""
from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType
from feast.types import Array, Float32
views = []
for name, floats in {FLOATS}.items():
    schema = [Field(name=f"f{{i}}", dtype=Float32) for i in range(floats)]
    schema.append(Field(name="vector", dtype=Array(Float32), vector_length={LIST}))
    globals()[name] = Entity(name=name, join_keys=[f"{{name}}_id"], value_type=ValueType.INT64)
    source = FileSource(path=f"data/{{name}}.parquet", timestamp_field="at")
    views.append(FeatureView(name=f"{{name}}s", entities=[globals()[name]], schema=schema, source=source))
users, items = views
everything = FeatureService(name="everything", features=views)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2.0, help="time per measurement")
    seconds = parser.parse_args().seconds
    print(f"{platform.machine()}, Python {platform.python_version()}")
    with tempfile.TemporaryDirectory() as folder, EmbeddedRedis() as redis:
        spec = filled(Path(folder), redis.url)
        gc.collect()
        gc.freeze()
        print(f"{'rows':<22}{'read by':<38}{'p50 ms':>8}{'p99 ms':>8}")
        compare("1 user x 100 items", Path(folder), redis.url, spec, users=1, rows=100, seconds=seconds)
        compare("500 users, 500 items", Path(folder), redis.url, spec, users=500, rows=500, seconds=seconds)


def filled(repo: Path, redis_url: str) -> Any:
    (repo / "data").mkdir()
    (repo / "feature_store.yaml").write_text(SETTINGS)
    (repo / "definitions.py").write_text(DEFINITIONS)
    random = np.random.default_rng(7)
    for name, floats in FLOATS.items():
        frame = pd.DataFrame({f"{name}_id": range(ENTITIES), "at": datetime(2026, 1, 1, tzinfo=UTC)})
        for i in range(floats):
            frame[f"f{i}"] = random.normal(size=ENTITIES).astype(np.float32)
        frame["vector"] = list(random.normal(size=(ENTITIES, LIST)).astype(np.float32))
        frame.to_parquet(repo / "data" / f"{name}.parquet")
    config = FeaturesConfig(
        service="everything",
        dense=[f"{name}s:f{i}" for name, floats in FLOATS.items() for i in range(floats)],
        embedding=["users:vector", "items:vector"],
    )
    spec = apply(repo, redis_url, config)
    assert materialize(repo, redis_url, config) == {"users": ENTITIES, "items": ENTITIES}
    return spec


def compare(title: str, repo: Path, redis_url: str, spec: Any, *, users: int, rows: int, seconds: float) -> None:
    random = np.random.default_rng(rows)
    item_ids = random.choice(ENTITIES, rows, replace=False).tolist()
    user_ids = random.choice(ENTITIES, users, replace=False).tolist() * (rows // users)
    store, reader = open_store(repo, redis_url), OnlineReader(spec, redis_url)
    names, entities = [f.name for f in spec.features], {"user_id": user_ids, "item_id": item_ids}

    def feast() -> dict[str, Any]:
        return store.get_online_features(names, entities, full_feature_names=True).to_dict()

    def ours() -> dict[str, Any]:
        return reader.read(user_ids, item_ids, [{}] * rows)

    expected, columns = feast(), ours()
    assert all(columns[name] == expected[name.replace(":", "__")] for name in names)
    report(title, "feast: get_online_features().to_dict()", timed(feast, seconds))
    report(title, "graft: OnlineReader.read", timed(ours, seconds))
    if users == 1:
        report(
            title,
            "graft: AsyncOnlineReader.read, no memory",
            asyncio.run(timed_async(spec, redis_url, user_ids[0], item_ids)),
        )
    report(title, "graft: FeatureSpec.encode", timed(lambda: spec.encode(columns), seconds))


def timed(call: Callable[[], Any], seconds: float) -> list[float]:
    """Milliseconds of each call."""
    taken = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        call()
        taken.append((time.perf_counter() - start) * 1e3)
    return taken


async def timed_async(spec: Any, redis_url: str, user_id: int, item_ids: list[int]) -> list[float]:
    reader = AsyncOnlineReader(spec, redis_url, 1.0, TableLimits(max_age_seconds=0))
    taken = []
    for _ in range(2_000):
        start = time.perf_counter()
        rows = await reader.read(user_id, item_ids, {})
        taken.append((time.perf_counter() - start) * 1e3)
        assert not rows.degraded
    await reader.close()
    return taken


def report(rows: str, what: str, milliseconds: list[float]) -> None:
    p50, p99 = np.percentile(milliseconds, [50, 99])
    print(f"{rows:<22}{what:<38}{p50:>8.2f}{p99:>8.2f}")


if __name__ == "__main__":
    main()
