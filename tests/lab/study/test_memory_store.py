"""The online store in memory, read as of a moment."""

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from features.aggregates import Aggregates
from features.config import AggregateConfig
from features.spec import Feature, FeatureSpec
from lab.study.log.memory_store import MemoryStore, Sources
from tests.features.examples import count_example

JANUARY, JUNE = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 6, 1, tzinfo=UTC)
AGGREGATES = [AggregateConfig(entity="item", push_source="shown_push", columns={"shown": "count"})]


def feature(view: str, name: str) -> Feature:
    return Feature(
        name=f"{view}:{name}",
        source="item",
        role="dense",
        dtype="float",
        default=0.0,
        view=view,
        feature=name,
        value_type="FLOAT",
    )


SPEC = FeatureSpec(
    feast_project="p",
    user_join_key="user_id",
    item_join_key="item_id",
    user_id_type="int",
    item_id_type="str",
    entity_key_serialization_version=3,
    features=(feature("product", "price"), feature("activity", "shown")),
)


def ms(time: datetime) -> int:
    return round(time.timestamp() * 1000)


def store_of(path: Path, rows: list[tuple[str, float, datetime]], now_ms: int = 2**63) -> MemoryStore:
    table = pa.table({"item_id": [r[0] for r in rows], "price": [r[1] for r in rows], "at": [r[2] for r in rows]})
    pq.write_table(table, path)
    sources = Sources({"product": (path, "item_id", "at")}, {"shown_push": "activity"})
    return MemoryStore(SPEC, sources, AGGREGATES, now_ms)


def price_at(store: MemoryStore, item: str, time_ms: int) -> object:
    return store.read_at([1], [item], [{}], [time_ms])["product:price"][0]


def test_a_row_that_begins_after_an_impression_is_never_its_feature(tmp_path: Path) -> None:
    store = store_of(tmp_path / "t.parquet", [("a", 6.0, JUNE), ("a", 1.0, JANUARY), ("b", 7.0, JUNE)])
    for time_ms, prices in (
        (ms(JANUARY) - 1, [None, None]),
        (ms(JANUARY), [1.0, None]),
        (ms(JUNE) - 1, [1.0, None]),
        (ms(JUNE), [6.0, 7.0]),
        (2**53, [6.0, 7.0]),
    ):
        assert [price_at(store, item, time_ms) for item in "ab"] == prices
    assert store.read([1, 1], ["a", "b"], [{}, {}])["product:price"] == [6.0, 7.0]


@pytest.mark.parametrize("zone", [UTC, None])
def test_a_row_holds_from_the_first_whole_millisecond_after_its_time(tmp_path: Path, zone: timezone | None) -> None:
    begins = JANUARY + timedelta(microseconds=1)
    store = store_of(tmp_path / "t.parquet", [("a", 1.0, begins.replace(tzinfo=zone))])
    assert [price_at(store, "a", ms(JANUARY) + after) for after in (0, 1)] == [None, 1.0]


def test_pushed_aggregates_are_those_of_now(tmp_path: Path) -> None:
    store = store_of(tmp_path / "t.parquet", [("a", 1.0, JANUARY)])
    aggregates = Aggregates(AGGREGATES)
    for count in (1, 2):
        count_example(aggregates, 1, "a", {}, ms(JUNE))
        store.push(aggregates, aggregates.changed(), ms(JUNE), {0: 0})
        assert store.read_at([1], ["a"], [{}], [ms(JANUARY)])["activity:shown"] == [count]


def test_a_read_without_a_time_is_as_of_the_moment_that_the_store_takes_for_now(tmp_path: Path) -> None:
    """So the bootstrap of a study knows nothing of the tables that began after its first impression."""
    rows = [("a", 1.0, JANUARY), ("a", 6.0, JUNE), ("b", 7.0, JUNE)]
    store = store_of(tmp_path / "t.parquet", rows, now_ms=ms(JUNE) - 1)
    assert store.read([1, 1], ["a", "b"], [{}, {}])["product:price"] == [1.0, None]
