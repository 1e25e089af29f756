"""Running aggregates that are counted by entity: right for any number of partitions, restarts and pushes."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.aggregates import Aggregates
from runtime.errors import GraftError, InvalidInputError, ServiceUnavailableError
from stream.events import Example
from stream.join.aggregation import (
    AggregateUpdate,
    EntityAggregates,
    entity_partition,
    packed,
    push_waiting,
    unpacked,
    updates_of,
)
from stream.join.partition import Partition
from stream.messages import Message
from tests.stream.pair import AGGREGATES, TASKS, stream_config, topics

TOPICS = topics("")


def factory():
    return Aggregates(AGGREGATES)


def example(number, user_id=1, item_id="a", rating=None):
    return Example(
        impression_id=f"i{number}",
        user_id=user_id,
        item_id=item_id,
        event_time_ms=number,
        context={},
        spec_id="s",
        features=[],
        labels={"like": 1.0, "rating": rating},
    )


def update(entity_id, entity="user"):
    return AggregateUpdate(entity=entity, entity_id=entity_id, labels={}, event_time_ms=5)


def record(value, number=0, offset=0):
    return Message(TOPICS.aggregate_updates, number, offset, None, value)


class Store:
    """Keeps what is pushed; `refuses` with an error instead."""

    def __init__(self):
        self.seen = {}
        self.pushes = []
        self.error = None

    def push(self, aggregates, changed, shown_ms, positions):
        if self.error:
            raise self.error
        self.pushes.append((shown_ms, positions))
        for entity, ids in changed.items():
            counts = aggregates.rows(f"{entity}_push", entity, ids)["seen" if entity == "user" else "shown"]
            self.seen |= {(entity, i): count for i, count in zip(ids, counts, strict=True)}
        return 0


def test_an_example_updates_the_entities_that_have_aggregates_with_the_labels_that_it_has():
    assert updates_of(example(3, rating=None), ["item"]) == [
        AggregateUpdate(entity="item", entity_id="a", labels={"like": 1.0}, event_time_ms=3)
    ]
    assert [one.entity for one in updates_of(example(3), factory().entities)] == ["user", "item"]
    assert updates_of(example(3), []) == []


def test_an_entitys_partition_is_the_same_in_every_process_and_version():
    assert [entity_partition("user", n, 6) for n in range(6)] == [4, 0, 4, 0, 3, 5]
    assert entity_partition("user", "1", 1_000) != entity_partition("user", 1, 1_000)
    assert entity_partition("item", "é☃", 6) == 5


def test_updates_of_a_transaction_are_one_record_a_partition_in_their_order_and_long_ones_are_split():
    updates = [update(n % 3) for n in range(7)] + [update(0, "item")] * 2_500
    records = [*packed(updates, 6)]
    found = [one for number, value in records for one in unpacked(record(value, number))]
    assert Counter(map(str, found)) == Counter(map(str, updates))
    for number, value in records:
        of_it = [one for one in updates if entity_partition(one.entity, one.entity_id, 6) == number]
        assert set(map(str, unpacked(record(value)))) <= set(map(str, of_it))
        assert len(unpacked(record(value))) <= 1_000
    assert len(records) == len({number for number, _ in records}) + 2


@pytest.mark.parametrize("value", [None, b"", b"{}", b'[["shop",1,{},1]]', b'[["user",1,{}]]', b'[["user",1,{},1,2]]'])
def test_a_record_that_graft_did_not_write_is_named(value):
    with pytest.raises(InvalidInputError, match="aggregate-updates-4: offset 17 holds no updates"):
        unpacked(record(value, 4, 17))


examples = st.lists(st.tuples(st.integers(0, 3), st.sampled_from("ab"), st.integers(0, 5)), max_size=30)


@settings(deadline=None)
@given(examples, st.integers(1, 6), st.sets(st.integers(0, 30)))
def test_aggregates_are_those_of_all_examples_however_many_partitions_count_them_and_restart(
    rows, partitions, restarts
):
    """Each partition closes some of the examples; each entity is counted by its own one, from the log of updates."""
    counted = {number: EntityAggregates(factory) for number in range(partitions)}
    saved: dict[int, dict[str, bytes | None]] = {number: {} for number in counted}
    store = Store()
    for at, (user_id, item_id, _) in enumerate(rows):
        for number, value in packed(updates_of(example(at, user_id, item_id), factory().entities), partitions):
            for one in unpacked(record(value, number)):
                counted[number].count(one)
            saved[number].update(counted[number].changes())
        if at in restarts:
            counted = {number: EntityAggregates(factory) for number in range(partitions)}
            for number, made in counted.items():
                made.restore(saved[number])
        else:
            push_waiting(counted, dict.fromkeys(counted, at), at, factory, store)
    push_waiting(counted, dict.fromkeys(counted, len(rows)), len(rows), factory, store)
    expected = Counter(("user", u) for u, _, _ in rows) + Counter(("item", i) for _, i, _ in rows)
    assert store.seen == expected
    assert all(made.entry(key) == saved[number][key] for number, made in counted.items() for key in saved[number])


def test_a_push_holds_what_changed_in_all_partitions_and_says_of_which_positions_it_is():
    counted = {number: EntityAggregates(factory) for number in (1, 4, 5)}
    counted[1].count(update(7))
    counted[4].count(update("a", "item")._replace(event_time_ms=9))
    store = Store()
    push_waiting(counted, {1: 10, 4: 40, 5: 50}, 9, factory, store)
    assert store.seen == {("user", 7): 1, ("item", "a"): 1}
    assert store.pushes == [(9, {1: 10, 4: 40})]
    push_waiting(counted, {1: 10, 4: 40, 5: 50}, 9, factory, store)
    assert len(store.pushes) == 1


def test_what_could_not_be_pushed_waits_for_the_next_push():
    counted, store = {0: EntityAggregates(factory)}, Store()
    counted[0].count(update(7))
    store.error = ServiceUnavailableError("away")
    with pytest.raises(ServiceUnavailableError):
        push_waiting(counted, {0: 1}, 5, factory, store)
    store.error = None
    push_waiting(counted, {0: 1}, 5, factory, store)
    assert store.seen == {("user", 7): 1}


def test_an_update_of_which_nothing_is_left_when_it_is_counted_leaves_at_once():
    """As it would after a restart; a row that only the next update removes would stay in a quiet stream."""
    decaying = [AGGREGATES[0].model_copy(update={"half_life_seconds": 0.5})]
    made = EntityAggregates(lambda: Aggregates(decaying))
    made.count(update(7)._replace(labels={"like": 1.0}, event_time_ms=100_000))
    made.count(update(8)._replace(labels={"like": 1.0}, event_time_ms=90_001))
    made.count(update(9)._replace(labels={"like": 1.0}, event_time_ms=90_000))
    assert [made.state_of("user", user) is None for user in (7, 8, 9)] == [False, False, True]
    assert ("user", 9) in made.waiting  # a row of before is removed


def partition(partitions):
    return Partition(0, TOPICS, stream_config("", partitions), TASKS, factory)


def state_of_an_earlier_version():
    made = partition(1)
    ((_, value),) = packed([update(7)], 1)
    made.count(record(value))
    entries = dict(made.changes())
    del made.positions._offsets[TOPICS.aggregate_updates]
    return entries | dict([made._position()])


def test_aggregates_of_an_earlier_version_are_gone_on_from_where_one_partition_counts_all():
    made = partition(1)
    made.restore(state_of_an_earlier_version(), 0.0)
    assert made.aggregates.state_of("user", 7)[1] == 1


def test_aggregates_that_several_partitions_of_an_earlier_version_counted_are_refused():
    with pytest.raises(GraftError, match=r"partition 0 is of an earlier version of graft.*new stream.topic_prefix"):
        partition(2).restore(state_of_an_earlier_version(), 0.0)
