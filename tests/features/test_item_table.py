"""What the scorer remembers of items: bounded, never older than it says, and right whatever is told when."""

import numpy as np
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from features.online.item_table import NOWHERE, ItemTable, TableLimits
from features.spec import FeatureBatch

ITEMS = st.integers(0, 11)


def batch_of(*values: int) -> FeatureBatch:
    """One row per value, which stands in every column."""
    rows = np.array(values)[:, None]
    return FeatureBatch(rows.astype(np.float32), np.repeat(rows, 2, axis=1).astype(np.uint64))


def stored(table: ItemTable, ids: list[int], *values: int, now: float = 0.0) -> None:
    with table.reading(ids) as reading:
        table.store(reading, batch_of(*values), now, told=True)


def is_fresh(table: ItemTable, item: int, now: float = 0.0) -> bool:
    return not len(table.stale(table.slots_of([item]), now))


def value_of(table: ItemTable, item: int) -> float:
    batch, _ = table.rows(table.slots_of([item]))
    return float(batch.dense_BD[0, 0])


def table_of(items: int = 5, max_age_seconds: float = 10.0) -> ItemTable:
    return ItemTable(1, 2, TableLimits(items, max_age_seconds))


def test_an_item_that_was_never_read_is_nowhere_and_not_fresh() -> None:
    table = table_of()
    assert table.slots_of([7]).tolist() == [NOWHERE]
    assert not is_fresh(table, 7)


def test_a_row_becomes_old_between_half_of_its_age_and_its_age() -> None:
    table = table_of(items=2_000)
    ids = list(range(1_500))
    stored(table, ids, *ids, now=100.0)
    slots = table.slots_of(ids)
    assert len(table.stale(slots, 104.9)) == 0
    assert 500 < len(table.stale(slots, 107.5)) < 1_000
    assert len(table.stale(slots, 110.0)) == 1_500
    assert value_of(table, 1_234) == 1_234, "it stays, for when Redis does not answer"


def test_where_nobody_tells_of_changes_a_row_becomes_old_sooner() -> None:
    table = ItemTable(1, 2, TableLimits(5, 100.0, 10.0))
    for item, told in ((1, True), (2, False)):
        with table.reading([item]) as reading:
            table.store(reading, batch_of(item), 0.0, told=told)
    assert [is_fresh(table, item, 4.9) for item in (1, 2)] == [True, True]
    assert [is_fresh(table, item, 10.0) for item in (1, 2)] == [True, False]
    assert [is_fresh(table, item, 100.0) for item in (1, 2)] == [False, False]


def test_the_item_that_was_read_longest_ago_makes_room() -> None:
    table = table_of(items=3)
    for item in (1, 2, 3, 1, 4):
        stored(table, [item], item)
    assert table.slots_of([2]).tolist() == [NOWHERE]
    assert [value_of(table, item) for item in (1, 3, 4)] == [1, 3, 4]


def test_a_change_that_is_told_while_an_item_is_being_read_makes_its_values_old() -> None:
    table = table_of()
    with table.reading([1, 2]) as reading:
        table.change(1)
        table.store(reading, batch_of(1, 2), 0.0, told=True)
    assert (is_fresh(table, 1), is_fresh(table, 2)) == (False, True)


def test_a_lost_connection_makes_all_old_also_what_is_being_read() -> None:
    table = table_of()
    stored(table, [1], 1)
    with table.reading([2]) as reading:
        table.change_all()
        table.store(reading, batch_of(2), 0.0, told=True)
    assert (is_fresh(table, 1), is_fresh(table, 2)) == (False, False)
    assert (value_of(table, 1), value_of(table, 2)) == (1, 2)


def test_a_stamp_changes_with_the_categorical_values_alone() -> None:
    table = table_of()
    stored(table, [1], 5)
    slot = table.slots_of([1])
    (first,) = table.stamps_of(slot)
    with table.reading([1]) as reading:
        table.store(reading, FeatureBatch(np.float32([[6]]), np.uint64([[5, 5]])), 0.0, told=True)
    assert (table.stamps_of(slot)[0], value_of(table, 1)) == (first, 6)
    stored(table, [1], 6)
    assert table.stamps_of(slot)[0] > first


class Model(RuleBasedStateMachine):
    """A store whose items change, and a table that hears of it: what is fresh has the store's value."""

    def __init__(self) -> None:
        super().__init__()
        self.table = table_of(items=6)
        self.values = dict.fromkeys(range(12), 0)
        self.under_way: list[tuple[object, object, list[int]]] = []

    @rule(item=ITEMS)
    def change(self, item: int) -> None:
        self.values[item] += 1
        self.table.change(item)

    @rule()
    def lose(self) -> None:
        self.values = {item: value + 1 for item, value in self.values.items()}
        self.table.change_all()

    @rule(ids=st.lists(ITEMS, min_size=1, max_size=4, unique=True))
    def begin(self, ids: list[int]) -> None:
        context = self.table.reading(ids)
        reading = context.__enter__()
        self.under_way.append((context, reading, [self.values[item] for item in ids]))

    @precondition(lambda self: self.under_way)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        context, reading, values = self.under_way.pop(data.draw(st.integers(0, len(self.under_way) - 1)))
        self.table.store(reading, batch_of(*values), 0.0, told=True)
        context.__exit__(None, None, None)

    @invariant()
    def fresh_rows_are_the_stores(self) -> None:
        for item, value in self.values.items():
            if is_fresh(self.table, item):
                batch, _ = self.table.rows(self.table.slots_of([item]))
                assert batch.dense_BD.tolist() == [[value]]
                assert batch.categorical_BC.tolist() == [[value, value]]

    @invariant()
    def memory_is_bounded(self) -> None:
        assert len(self.table) <= 6
        assert len(self.table.all_rows()[0]) <= 7


TestModel = Model.TestCase
