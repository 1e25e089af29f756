"""The stream's step: pure, and the same whatever the size of its steps."""

import json
from collections import Counter
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.aggregates import Aggregates
from runtime.errors import ServiceUnavailableError
from stream.events import Impression
from stream.join import join
from stream.join.aggregation import AggregateUpdate, packed
from stream.join.partition import Partition
from stream.join.step import Arrival, Effects, StreamStep
from stream.messages import Message
from tests.stream.pair import AGGREGATES, SPEC, TASKS, Scenario, feedback, impression, stream_config, topics

TOPICS = topics("")
INPUTS = (TOPICS.impressions, TOPICS.feedback)
END_MS = 10.0**9
WALL_MS = 2**53


def aggregates():
    return Aggregates(AGGREGATES)


def partition(number=0):
    return Partition(number, TOPICS, stream_config(""), TASKS, aggregates)


def columns(impressions):
    return {
        "user_id": [i.user_id for i in impressions],
        "item_id": [i.item_id for i in impressions],
        "context:hour": [i.context["hour"] for i in impressions],
    }


def messages_of(lines, number=0):
    topic_of = dict(zip(("impression", "feedback"), INPUTS, strict=True))
    return [Message(topic_of[kind], number, at, key.encode(), raw) for at, (kind, key, raw) in enumerate(lines)]


def caught_up(*numbers):
    return {(topic, number) for topic in INPUTS for number in numbers}


def steps(step, partitions, arrivals, limit):
    """All effects of each partition in one, after steps until nothing more comes."""
    whole = {number: Effects(number, Counter(), [], [], [], 0, [], 0, False, {}) for number in partitions}
    everywhere = caught_up(*partitions)
    for arrived in [*arrivals, Arrival([], everywhere, 0.0, WALL_MS), Arrival([], everywhere, END_MS, WALL_MS)]:
        arrival, more = arrived, True
        while more:
            found = step.take(partitions, arrival, limit)
            for one in found:
                sums = (a + b for a, b in zip(whole[one.partition][1:8], one[1:8], strict=True))
                whole[one.partition] = Effects(one.partition, *sums, has_more=False, traceparents={})
            arrival, more = arrived._replace(messages=[]), any(one.has_more for one in found)
    for one in whole.values():
        one.dead_letters.sort()  # within a step those that are invalid come first
    return whole


SCENARIO = Scenario(80)


def test_one_step_of_everything_gives_every_example_dead_letter_and_count():
    (effects,) = steps(
        StreamStep(SPEC, TASKS, columns),
        {0: partition()},
        [Arrival(messages_of(SCENARIO.lines), (), 0.0, WALL_MS)],
        10_000,
    ).values()
    assert {e.impression_id: e.labels for e in effects.examples} == SCENARIO.labels
    assert [e.features for e in effects.examples[:2]] == [[0, "item0", 0], [1, "item1", 1]]
    assert Counter(r.impression_id for r in effects.requests) == Counter(list(SCENARIO.labels))
    assert effects.duplicates == 8
    kinds = Counter(letter.code for letter in effects.dead_letters)
    assert kinds == {"outside_window": len(SCENARIO.late), "invalid": len(SCENARIO.bad)}
    assert effects.taken.total() == len(SCENARIO.lines)


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(0, 400), max_size=5), st.integers(1, 40), st.integers(1, 40))
def test_how_messages_arrive_and_how_many_a_step_takes_and_ends_changes_nothing(cuts, limit, most_ended):
    messages = messages_of(SCENARIO.lines)
    ends = [*sorted(cut for cut in cuts if cut < len(messages)), len(messages)]
    arrivals = [Arrival(messages[a:b], (), 0.0, WALL_MS) for a, b in zip([0, *ends], ends, strict=False)]
    at_once = steps(StreamStep(SPEC, TASKS, columns), {0: partition()}, [Arrival(messages, (), 0.0, WALL_MS)], 10_000)
    with mock.patch.object(join, "MOST_ENDED", most_ended):
        assert steps(StreamStep(SPEC, TASKS, columns), {0: partition()}, arrivals, limit) == at_once


def closed_in_each_step(arrival, made):
    """How many examples each step gives, until nothing more comes."""
    counts, more = [], True
    while more:
        (effects,) = StreamStep(SPEC, TASKS, columns).take({0: made}, arrival, 1_000)
        counts.append((len(effects.examples), effects.taken.total()))
        arrival, more = arrival._replace(messages=[]), effects.has_more
    return counts


def test_a_jump_of_event_time_ends_much_over_several_steps_and_the_next_message_waits(monkeypatch):
    monkeypatch.setattr(join, "MOST_ENDED", 30)
    made = partition()
    waiting = [impression(n, 1_000_000 + n) for n in range(70)]
    jump = [impression(1_000, 2_000_000), feedback(1_000, "like", 1, 2_000_000), feedback(0, "like", 1, 1_000_001)]
    lines = [("feedback" if "task" in e else "impression", "k", json.dumps(e).encode()) for e in (*waiting, *jump)]
    assert closed_in_each_step(Arrival(messages_of(lines), caught_up(0), 0.0, WALL_MS), made) == [
        (30, 72),
        (30, 0),
        (10, 1),
    ]


def test_a_pause_closes_much_over_several_steps(monkeypatch):
    monkeypatch.setattr(join, "MOST_ENDED", 30)
    made = partition()
    lines = [("impression", "k", json.dumps(impression(n, 1_000_000 + n)).encode()) for n in range(70)]
    assert closed_in_each_step(Arrival(messages_of(lines), caught_up(0), 0.0, WALL_MS), made) == [(0, 70)]
    assert closed_in_each_step(Arrival([], caught_up(0), END_MS, WALL_MS), made) == [(30, 0), (30, 0), (10, 0)]


def test_features_of_all_partitions_are_read_at_once_and_go_to_their_own_impressions():
    asked = []

    def read(impressions):
        asked.append([i.impression_id for i in impressions])
        return columns(impressions)

    lines = {2: Scenario(3).lines, 5: Scenario(3, first=100).lines}
    arrived = [message for number, of_it in lines.items() for message in messages_of(of_it, number)]
    partitions = {number: partition(number) for number in lines}
    found = StreamStep(SPEC, TASKS, read).take(partitions, Arrival(arrived, caught_up(2, 5), 0.0, WALL_MS), 1_000)
    assert len(asked) == 1
    for effects in found:
        for request in effects.requests:
            number = int(request.impression_id[1:])
            assert request.features == [number % 7, f"item{number % 5}", number % 24]
    assert [{r.impression_id for r in one.requests} for one in found] == [{"i0", "i1", "i2"}, {"i100", "i101", "i102"}]


def test_a_step_takes_no_more_than_its_limit_and_says_so():
    step, partitions = StreamStep(SPEC, TASKS, columns), {0: partition()}
    arrival = Arrival(messages_of(SCENARIO.lines[:10]), caught_up(0), 0.0, WALL_MS)
    taken = []
    for _ in range(4):
        (effects,) = step.take(partitions, arrival, 4)
        taken.append(effects.taken.total())
        arrival = arrival._replace(messages=[])
    assert taken == [4, 4, 2, 0]


def test_an_example_gives_an_update_of_its_user_and_of_its_item_in_the_step_that_closes_it():
    made = partition()
    (effects,) = steps(
        StreamStep(SPEC, TASKS, columns), {0: made}, [Arrival(messages_of(Scenario(3).lines), (), 0.0, WALL_MS)], 1_000
    ).values()
    assert len(effects.examples) == 3
    assert [(u.entity, u.entity_id) for u in effects.updates] == [
        *(("user", 0), ("item", "item0")),
        *(("user", 1), ("item", "item1")),
        *(("user", 2), ("item", "item2")),
    ]
    assert not [*made.aggregates.waiting]  # they are counted when they come back from their log


def test_updates_are_counted_by_the_partition_that_they_were_sent_to_and_take_no_turn():
    partitions = {2: partition(2), 5: partition(5)}
    update = AggregateUpdate(entity="user", entity_id=7, labels={"like": 1.0}, event_time_ms=9)
    ((_, value),) = packed([update, update], 1)
    arrived = [Message(TOPICS.aggregate_updates, 5, 30, None, value)]
    found = StreamStep(SPEC, TASKS, columns).take(partitions, Arrival(arrived, (), 0.0, WALL_MS), 1)
    assert [one.taken.total() for one in found] == [0, 0]
    assert partitions[2].aggregates.state_of("user", 7) is None
    assert partitions[5].aggregates.state_of("user", 7)[1] == 2
    assert partitions[5].positions[TOPICS.aggregate_updates] == 31


def test_what_the_reader_raises_ends_the_step():
    def away(impressions):
        assert all(isinstance(i, Impression) for i in impressions)
        raise ServiceUnavailableError("Redis is away")

    with pytest.raises(ServiceUnavailableError):
        StreamStep(SPEC, TASKS, away).take(
            {0: partition()}, Arrival(messages_of(SCENARIO.lines[:3]), caught_up(0), 0.0, WALL_MS), 10
        )
