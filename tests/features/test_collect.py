"""From pushes to the batch table that Feast reads: every impression finds the row that it has read."""

import logging
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.aggregates import Aggregates
from features.config import AggregateConfig
from features.repo.batch_tables import Collected, collect
from features.repo.push_log import UNLOGGED, PushedTable, PushLog, segments
from runtime.errors import GraftError
from tests.disks import Disk

ITEMS = AggregateConfig(
    entity="item",
    push_source="items",
    half_life_seconds=1e-3,
    columns={"shown": "count", "dwell": "sum(dwell)"},
)


def table_in(folder: Path) -> PushedTable:
    columns = {"shown": pa.float64(), "dwell": pa.float32()}
    return PushedTable(folder / "items.parquet", "item_id", "int", columns, "begins")


class Pushes:
    """Pushes of absolute values, by processes that may be killed."""

    def __init__(self, table: PushedTable) -> None:
        self.table = table
        self.start()

    def start(self, owner: str = "ours") -> None:
        """A new process."""
        self.log = PushLog({"items": self.table}, [ITEMS])
        self.log.begin(owner)

    def push(self, shown_ms: int, values: dict[int, float | None]) -> None:
        """None: the item has left."""
        aggregates = Aggregates([ITEMS])
        for item, value in values.items():
            if value is not None:
                aggregates.add("item", item, {"dwell": value}, 0)
        self.log.append(aggregates, {"item": list(values)}, shown_ms)

    def kill(self, torn: int = 0) -> None:
        """End the process; its last `torn` bytes are not on the disk."""
        self.log.close()
        if torn and (found := segments(self.table.log_folder)):
            with found[-1].open("r+b") as file:
                file.truncate(max(0, found[-1].stat().st_size - torn))


@pytest.fixture
def table(tmp_path: Path) -> PushedTable:
    return table_in(tmp_path)


@pytest.fixture
def pushes(table: PushedTable) -> Iterator[Pushes]:
    made = Pushes(table)
    yield made
    made.kill()


def read(table: PushedTable, item: int, event_time_ms: int) -> float | None:
    """What a point-in-time join gives for the dwell of an item; a LookupError where it finds no row at all."""
    rows = pq.read_table(table.path).to_pylist()
    time = datetime.fromtimestamp(0, UTC) + np.timedelta64(event_time_ms, "ms").item()
    begun = [row for row in rows if row["item_id"] == item and row["begins"] <= time]
    if not begun:
        raise LookupError(item)
    found: float | None = max(begun, key=lambda row: row["begins"])["dwell"]
    return found


_VALUES = st.dictionaries(st.integers(0, 2), st.one_of(st.none(), st.sampled_from([0.0, 1.5, 2.5])), max_size=3)
_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("push"), st.integers(0, 3), _VALUES),
        st.tuples(st.just("repeat"), st.just(0), st.just({})),
        st.tuples(st.just("restart"), st.just(0), st.just({})),
        st.tuples(st.just("collect"), st.just(0), st.just({})),
    ),
    max_size=12,
)


@given(_STEPS)
def test_an_impression_finds_what_was_pushed_last_before_it_was_read(tmp_path_factory, steps) -> None:
    table = table_in(tmp_path_factory.mktemp("collect"))
    pushes, pushed, shown_ms = Pushes(table), list[tuple[int, dict[int, float | None]]](), 10
    for kind, later_ms, values in steps:
        shown_ms += later_ms
        if kind == "push":
            pushed.append((shown_ms, values))
        if kind in {"push", "repeat"} and pushed:
            pushes.push(shown_ms, pushed[-1][1])
        if kind == "restart":
            pushes.kill()
            pushes.start()
        if kind == "collect":
            collect(table)
    collect(table)
    pushes.kill()

    known = {item for _, values in pushed for item in values}
    for item in known:
        for event_time_ms in range(9, shown_ms + 3):
            before = [values[item] for at_ms, values in pushed if item in values and at_ms < event_time_ms]
            assert read(table, item, event_time_ms) == (before[-1] if before else None)
    assert pq.read_table(table.path).num_rows <= len(known) + sum(len(values) for _, values in pushed)


def test_a_batch_that_a_kill_has_torn_is_left_out_and_comes_again_with_the_restart(
    table: PushedTable, pushes: Pushes
) -> None:
    pushes.push(10, {1: 1.5})
    pushes.push(20, {1: 2.5})
    pushes.kill(torn=20)
    assert collect(table) == Collected(rows=2, entities=1, log_rows=1)
    pushes.start()
    pushes.push(20, {1: 2.5})  # a restart pushes all that it restores

    collect(table)
    assert [read(table, 1, time_ms) for time_ms in (10, 11, 20, 21)] == [None, 1.5, 1.5, 2.5]


def test_segments_are_removed_once_they_are_in_the_table_and_their_process_has_ended(
    table: PushedTable, pushes: Pushes
) -> None:
    pushes.push(10, {1: 1.5})
    collect(table)
    assert len(segments(table.log_folder)) == 1
    pushes.push(20, {1: 2.5})
    pushes.kill()
    collect(table)
    assert segments(table.log_folder) == []
    assert collect(table) == Collected(rows=3, entities=1, log_rows=0)
    assert read(table, 1, 21) == 2.5


def test_what_another_join_state_has_pushed_is_gone(table: PushedTable, pushes: Pushes) -> None:
    pushes.push(1_000, {1: 1.5})
    pushes.kill()
    collect(table)
    pushes.start("another")
    pushes.push(10, {2: 2.5})

    assert collect(table) == Collected(rows=2, entities=1, log_rows=1)
    assert read(table, 2, 11) == 2.5
    with pytest.raises(LookupError):
        read(table, 1, 2_000)


def test_of_old_pushes_each_entity_keeps_the_newest(table: PushedTable, pushes: Pushes) -> None:
    for shown_ms, value in ((10, 1.0), (20, 1.5), (30, 2.0), (40, 2.5)):
        pushes.push(shown_ms, {1: value, 2: 0.5})
    whole = collect(table)
    kept = collect(table, datetime.fromtimestamp(0.035, UTC))

    assert (whole.rows, kept.rows) == (2 + 4 + 1, 2 + 2 + 1)
    assert [read(table, 1, time_ms) for time_ms in (25, 35, 41)] == [None, 2.0, 2.5]
    assert [read(table, 2, time_ms) for time_ms in (25, 41)] == [0.5, 0.5]


def test_values_are_those_that_the_online_store_gives(table: PushedTable, pushes: Pushes) -> None:
    pushes.push(10, {1: 0.1, 2: 1e300})
    collect(table)

    assert read(table, 1, 11) == float(np.float32(0.1))
    assert read(table, 2, 11) is None, "what float32 cannot hold is a miss online, too"


def test_rows_that_graft_did_not_write_are_not_touched(table: PushedTable, pushes: Pushes) -> None:
    pq.write_table(
        pa.table({"item_id": [1], "dwell": [2.0], "shown": [1.0], "begins": [datetime.now(UTC)]}), table.path
    )
    before = table.path.read_bytes()

    with pytest.raises(GraftError, match=r"items\.parquet: has rows that graft did not write; .* move it away"):
        collect(table)
    assert table.path.read_bytes() == before


def test_an_empty_table_of_other_columns_is_filled(table: PushedTable, pushes: Pushes) -> None:
    pq.write_table(pa.schema([("item_id", pa.int64()), ("begins", pa.timestamp("ms"))]).empty_table(), table.path)
    assert collect(table) == Collected(0, 0, 0)
    pushes.push(10, {1: 1.5})
    assert collect(table).rows == 2


def test_rows_of_other_columns_are_an_error_that_names_them(table: PushedTable, pushes: Pushes) -> None:
    pushes.push(10, {1: 1.5})
    collect(table)
    changed = table._replace(columns={**table.columns, "clicks": pa.float32()})

    with pytest.raises(GraftError, match=r"items.pushed: .*clicks.*; the view has changed since: move both away"):
        collect(changed)


def test_a_full_disk_stops_nothing_is_said_once_and_counted(disk: Disk, caplog: pytest.LogCaptureFixture) -> None:
    table = table_in(disk.folder)
    pushes, count = Pushes(table), _counter()
    many = dict.fromkeys(range(1, 1_000), 1.5)
    pushes.push(10, {1: 1.0})
    disk.fill()
    with caplog.at_level(logging.WARNING):
        pushes.push(20, many)
        pushes.push(30, {1: 2.0})
    disk.make_room()
    pushes.push(40, {1: 2.5})
    pushes.kill()

    assert count() == len(many) + 1
    (line,) = [record.getMessage() for record in caplog.records if not record.name.startswith("kafka")]
    assert "items.pushed: cannot be written: No space left on device; make room on its disk" in line
    collect(table)
    assert [read(table, 1, time_ms) for time_ms in (35, 41)] == [1.0, 2.5]


def _counter() -> Callable[[], float]:
    before = UNLOGGED._value.get()
    return lambda: UNLOGGED._value.get() - before
