"""One Feast repository, applied and materialized once, and the Redis that holds it."""

import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest

import features.repo.feast  # noqa: F401 - before the tests import Feast, which is quicker this way
from features.config import FeaturesConfig
from features.online.redis_layout import EntityLayout, field_name
from features.spec import Feature, FeatureSpec
from lab.embedded import EmbeddedRedis
from runtime.redis import connect

CONFIG: dict[str, Any] = {
    "service": "student",
    "dense": [
        *("users:age", "users:level", "users:score", "users:income", "users:member", "items:year", "items:price"),
        *("user_taught:like", "item_taught:like"),
    ],
    "embedding": ["users:taste", "users:taste64", "items:vector", "item_taught:vector"],
    "categorical": ["user_id", "item_id", "users:city", "items:genre", "context:device", "user_history:shown"],
    "passthrough": ["context:hour", "user_history:like_rate", "user_history:rating_sum", "item_history:like_rate"],
    "context": {"device": {"dtype": "str", "default": "phone"}, "hour": {"dtype": "int", "default": 0}},
    "defaults": {"users:taste64": [0.5, 0.5], "users:score": -1, "users:city": "nowhere"},
    "aggregates": [
        {
            "entity": "user",
            "push_source": "user_history_push",
            "columns": {"shown": "count", "like_rate": "mean(like)", "rating_sum": "sum(rating)"},
        },
        {
            "entity": "item",
            "push_source": "item_history_push",
            "columns": {"shown": "count", "like_rate": "mean(like)"},
        },
    ],
    "profiles": [
        {"entity": "user", "push_source": "user_taught_push", "columns": {"like": "like"}},
        {"entity": "item", "push_source": "item_taught_push", "columns": {"like": "like", "vector": "own"}},
    ],
}
_USERS = [1, 2, 3, -7, 2**62]
_ITEMS = [f"i{n}" for n in range(120)] + ["", "Ünïcode ☃"]


class Applied(NamedTuple):
    """An applied and materialized repository, and the entities whose rows it holds."""

    repo: Path
    redis_url: str
    spec: FeatureSpec
    rows: dict[str, int]
    users: list[int]
    items: list[str]


@pytest.fixture
def config() -> FeaturesConfig:
    return FeaturesConfig.model_validate(CONFIG)


@pytest.fixture
def changed_config() -> Callable[..., FeaturesConfig]:
    """`CONFIG` with some of its entries replaced."""
    return lambda **changes: FeaturesConfig.model_validate({**CONFIG, **changes})


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    """A repository of this test's own, not applied."""
    return _write_repo(tmp_path)


@pytest.fixture(scope="session")
def feature_redis() -> Iterator[EmbeddedRedis]:
    """A Redis that no test flushes or restarts."""
    with EmbeddedRedis() as server:
        yield server


@pytest.fixture
def own_redis() -> Iterator[EmbeddedRedis]:
    """A Redis that the test may kill or lock."""
    with EmbeddedRedis() as server:
        yield server


@pytest.fixture(scope="session")
def applied(feature_redis: EmbeddedRedis, tmp_path_factory: pytest.TempPathFactory) -> Applied:
    """The repository in Redis, once for the session."""
    from features.repo.store import apply, materialize  # noqa: PLC0415 - only the tests that need Feast pay for its import

    repo = _write_repo(tmp_path_factory.mktemp("pair"))
    config = FeaturesConfig.model_validate(CONFIG)
    spec = apply(repo, feature_redis.url, config)
    rows = materialize(repo, feature_redis.url, config)
    return Applied(repo, feature_redis.url, spec, rows, _USERS, _ITEMS)


@pytest.fixture
def small_spec() -> FeatureSpec:
    """Two integers, one of a user and one of an item; for `store_small`, without Feast."""
    return FeatureSpec(
        feast_project="small",
        user_join_key="user_id",
        item_join_key="item_id",
        user_id_type="int",
        item_id_type="int",
        entity_key_serialization_version=3,
        features=(_small("users", "user"), _small("items", "item")),
    )


@pytest.fixture
def store_small() -> Callable[[str, int], None]:
    """Store users and items 0..size-1 of `small_spec`, each with its id as its number."""

    def store(redis_url: str, size: int) -> None:
        with connect(redis_url) as client, client.pipeline(transaction=False) as pipe:
            for join_key, view in (("user_id", "users"), ("item_id", "items")):
                layout = EntityLayout("small", join_key, "int", [])
                for number in range(size):
                    pipe.hset(layout.key(number), field_name(view, "number"), bytes([0x20, number]))
            pipe.execute()

    return store


def _small(view: str, source: Any) -> Feature:
    return Feature(
        name=f"{view}:number",
        source=source,
        role="dense",
        dtype="int",
        default=0,
        view=view,
        feature="number",
        value_type="INT64",
    )


def _write_repo(folder: Path) -> Path:
    repo = folder / "feature_repo"
    shutil.copytree(Path(__file__).with_name("feature_repo"), repo)
    (repo / "data").mkdir()
    _users().to_parquet(repo / "data" / "users.parquet")
    _items().to_parquet(repo / "data" / "items.parquet")
    return repo


def _users() -> pd.DataFrame:
    """Edge values of every type, and an older row for each user, which must not win."""
    rng = np.random.default_rng(1)
    size = len(_USERS)
    frame = pd.DataFrame(
        {
            "user_id": _USERS,
            "event_timestamp": datetime(2026, 1, 1, tzinfo=UTC),
            "age": [0, 1, 127, 128, -(2**63)],
            "level": pd.array([0, 1, 300, -1, -(2**31)], dtype="int32"),
            "score": np.array([0.0, 0.1, -0.0, 3e38, 1e-45], np.float32),
            "income": [0.0, 0.1, 1e308, -5e-324, 12345.678],
            "member": [True, False, True, False, True],
            "city": ["", "Zürich", "a" * 200, "x", "☃"],
            "taste": [row.astype(np.float32).tolist() for row in rng.normal(size=(size, 3))],
            "taste64": [row.tolist() for row in rng.normal(size=(size, 2))],
        }
    )
    older = frame.assign(event_timestamp=datetime(2025, 1, 1, tzinfo=UTC), age=55)
    return pd.concat([frame, older], ignore_index=True)


def _items() -> pd.DataFrame:
    rng = np.random.default_rng(2)
    size = len(_ITEMS)
    return pd.DataFrame(
        {
            "item_code": _ITEMS,
            "event_timestamp": datetime(2026, 1, 1, tzinfo=UTC),
            "year": rng.integers(1900, 2030, size),
            "price": [np.nan if n % 7 == 0 else n / 3 for n in range(size)],
            "genre": [None if n % 5 == 0 else f"g{n % 4}" for n in range(size)],
            "vector": [row.astype(np.float32).tolist() for row in rng.normal(size=(size, 40))],
        }
    ).astype({"price": "float32"})
