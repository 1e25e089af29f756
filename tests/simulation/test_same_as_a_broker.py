"""The simulator against the truth: what it makes of a seed, the stream process makes of it on a true broker."""

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from kafka import TopicPartition

from tests.simulation.schedule import LAST, Schedule, calm_schedule_of, partition_of
from tests.simulation.seeds import quiet
from tests.simulation.verdict import faults_of
from tests.simulation.world import INPUTS, TOPICS, World, run_schedule
from tests.stream.conftest import StreamHarness


@pytest.fixture(params=["embedded", pytest.param("apache", marks=pytest.mark.kafka_home)])
def harness(request: Any, kafka: str, redis_url: str, topic_prefix: str, tmp_path: Path):
    servers = kafka if request.param == "embedded" else request.getfixturevalue("apache_kafka").servers
    made = StreamHarness(servers, redis_url, topic_prefix, tmp_path / "stream.log", partitions=2)
    yield made
    made.close()


def send(harness: StreamHarness, schedule: Schedule) -> None:
    for sent in schedule.sent:
        at = partition_of(sent.key, schedule.partitions)
        harness.producer.send(getattr(harness.topics, sent.kind), sent.value, sent.key, partition=at)
    harness.producer.flush()


def is_last(value: bytes) -> bool:
    """Whether an example is one of those that only a pause closes."""
    return int(json.loads(value)["impression_id"][1:]) >= LAST


def simulated(world: World, name: str) -> list[tuple[int, bytes]]:
    """The records of a topic that a read-committed consumer is given, by partition and offset."""
    logs = [world.broker.logs[TopicPartition(name, number)] for number in range(world.schedule.partitions)]
    return [(log.at.partition, record.value or b"") for log in logs for record in log.committed()]


Letter = tuple[str, str, str, str]


def letter_of(topic: str, headers: Iterable[tuple[str, bytes]]) -> Letter:
    """Which message of an input became a dead letter, and why."""
    found = {name: value.decode() for name, value in headers}
    partition, offset = found["__streams.errors.partition"], found["__streams.errors.offset"]
    return topic, partition, offset, found["graft.errors.code"]


def simulated_letters(world: World) -> list[Letter]:
    """The dead letters of what the schedule sends; a run sends some impressions again at its end."""
    schedule = world.schedule
    sent = Counter((s.kind, partition_of(s.key, schedule.partitions)) for s in schedule.sent)
    letters = [
        letter_of(topic, record.headers)
        for topic in INPUTS
        for number in range(schedule.partitions)
        for record in world.broker.logs[TopicPartition(TOPICS.dead_letters(topic), number)].committed()
    ]
    return sorted(one for one in letters if int(one[2]) < sent[one[0], int(one[1])])


@pytest.mark.parametrize("seed", [3, 11])
def test_the_same_seed_gives_the_same_examples_and_dead_letters_in_the_simulation_and_on_a_broker(harness, seed):
    schedule = calm_schedule_of(seed)
    with quiet():
        world = run_schedule(schedule)
    assert faults_of(world) == []
    examples = [one for one in simulated(world, TOPICS.examples) if not is_last(one[1])]
    letters = simulated_letters(world)
    assert len(examples) > 40
    assert len(letters) > 3

    send(harness, schedule)
    harness.start()
    harness.await_examples(len(examples))
    found = harness.await_dead_letters(len(letters))
    assert [(r.partition, r.value) for r in harness.read(harness.topics.examples)] == examples
    prefix = len(harness.prefix)
    assert sorted(letter_of(r.topic[prefix:].removesuffix(".dlq"), r.headers) for r in found) == letters
