"""Sampling: the same negatives are left out whatever happens, all are counted, and those that stay say what for."""

import json
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.events import Example
from stream.join.sampling import Sampling, SamplingConfig, is_drawn
from stream.join.step import Arrival, StreamStep
from stream.tasks import TaskSpec
from tests.stream.pair import SPEC, TASKS, Scenario, save
from tests.stream.test_step import END_MS, WALL_MS, caught_up, columns, messages_of, partition, steps

SCENARIO = Scenario(400)
ONE_OF_5 = SamplingConfig(one_negative_of=5)


def joined(sampling=None, limit=10_000):
    step, arrival = StreamStep(SPEC, TASKS, columns, sampling), Arrival(messages_of(SCENARIO.lines), (), 0.0, WALL_MS)
    return steps(step, {0: partition()}, [arrival], limit)[0]


def test_all_positives_and_a_share_of_the_negatives_become_examples_and_the_others_are_counted():
    whole, sampled = joined(), joined(ONE_OF_5)
    positives = {name for name, labels in SCENARIO.labels.items() if labels["like"]}
    weights = {example.impression_id: example.weight for example in sampled.examples}
    assert {name for name, weight in weights.items() if weight == 1} == positives
    drawn = {name for name in SCENARIO.labels if name not in positives and is_drawn(name, 5)}
    assert {name for name, weight in weights.items() if weight == 5} == drawn
    assert 25 < len(drawn) < 70  # of about 240
    assert sampled.left_out == len(whole.examples) - len(sampled.examples) == 400 - len(positives) - len(drawn)
    assert whole.left_out == 0


def test_only_examples_are_fewer():
    """Running aggregates mean the whole log, and the teacher is asked before anybody knows the labels."""
    whole, sampled = joined(), joined(ONE_OF_5)
    assert sampled._replace(examples=[], left_out=0) == whole._replace(examples=[])
    kept = {example.impression_id for example in sampled.examples}
    expected = [example for example in whole.examples if example.impression_id in kept]
    assert [example.model_copy(update={"weight": 1}) for example in sampled.examples] == expected


@settings(deadline=None, max_examples=15)
@given(st.integers(1, 400), st.integers(1, 40))
def test_a_restart_at_any_message_and_the_size_of_steps_change_nothing(at, limit):
    """The state that the first process saves is all that the second one has."""
    messages, step = messages_of(SCENARIO.lines), StreamStep(SPEC, TASKS, columns, ONE_OF_5)
    first, saved = partition(), {}
    found = taken_by(step, first, Arrival(messages[:at], (), 0.0, WALL_MS), limit)
    save(saved, first.changes())
    second = partition()
    second.restore(saved, 0.0)
    left = [m for m in messages if m.offset >= second.positions.get(m.topic, 0)]
    found += taken_by(step, second, Arrival(left, (), 0.0, WALL_MS), limit)
    for now_ms in (0.0, END_MS):
        found += taken_by(step, second, Arrival([], caught_up(0), now_ms, WALL_MS), limit)
    assert [example.model_dump_json() for example in found] == [e.model_dump_json() for e in joined(ONE_OF_5).examples]


def taken_by(step, one, arrival, limit):
    found, more = [], True
    while more:
        (effects,) = step.take({0: one}, arrival, limit)
        found += effects.examples
        arrival, more = arrival._replace(messages=[]), effects.has_more
    return found


def example(number, **labels):
    return Example(
        impression_id=f"i{number}",
        user_id=1,
        item_id="a",
        event_time_ms=5,
        context={},
        spec_id="s",
        features=[],
        labels=labels,
    )


def test_an_example_with_a_1_in_any_binary_task_is_no_negative():
    tasks = [*TASKS, TaskSpec(name="share", kind="binary", window_seconds=20)]
    sampling = Sampling(SamplingConfig(one_negative_of=10_000), tasks)
    assert sampling.kept(example(1, like=0.0, rating=None, share=1.0), is_alone=True).weight == 1
    assert sampling.kept(example(1, like=1.0, rating=None, share=0.0), is_alone=True).weight == 1
    negative = example(1, like=0.0, rating=5.0, share=0.0)  # a regression's label decides nothing
    assert sampling.kept(negative, is_alone=True) is None


@given(st.text(min_size=1), st.integers(1, 9_999))
def test_what_a_smaller_share_keeps_a_larger_one_keeps_too(impression_id, one_of):
    if is_drawn(impression_id, one_of + 1):
        assert is_drawn(impression_id, one_of)
    assert is_drawn(impression_id, 1)


@pytest.mark.parametrize("one_of", [2, 3, 5, 20])
def test_the_share_that_is_kept_is_the_one_that_was_asked_for_in_every_partition(one_of):
    """Producers put an impression into the partition that a hash of its id names."""
    ids = [f"{n:x}" for n in range(60_000)]
    counts = Counter(hash_of(name) % 3 for name in ids if is_drawn(name, one_of))
    for partition_number in range(3):
        assert counts[partition_number] == pytest.approx(20_000 / one_of, rel=0.08)


def hash_of(name):
    from kafka.partitioner.default import murmur2  # noqa: PLC0415 - Kafka's own

    return murmur2(name.encode())


def test_without_sampling_an_example_has_the_bytes_that_it_had():
    fields = ["impression_id", "user_id", "item_id", "event_time_ms", "context", "spec_id", "features", "labels"]
    assert [list(json.loads(e.model_dump_json())) for e in joined().examples[:3]] == [fields] * 3
    sampled = next(e for e in joined(ONE_OF_5).examples if e.weight > 1)
    assert list(json.loads(sampled.model_dump_json())) == [*fields, "weight"]
    assert Example.model_validate_json(sampled.model_dump_json()) == sampled


def test_an_example_of_an_earlier_release_stands_for_itself():
    line = b'{"impression_id":"i","user_id":1,"item_id":"a","event_time_ms":5,"context":{},"spec_id":"s",'
    assert Example.model_validate_json(line + b'"features":[],"labels":{"like":0.0}}').weight == 1
