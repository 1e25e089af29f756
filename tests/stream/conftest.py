"""The stream process as a child, and the topics around it."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaConsumer, TopicPartition

from runtime.child import stop_child
from stream.kafka import connection
from stream.kafka.topics import ensure_topics
from tests.forked import start_forked
from tests.stream.pair import Scenario, feedback, impression, stream_config, topics


class StreamHarness:
    """One pair on a broker: its topics, its stream processes, what it sent and what came out."""

    def __init__(self, kafka_servers: str, redis_url: str, prefix: str, log: Path, *, partitions: int = 1) -> None:
        self.kafka_servers, self.redis_url, self.prefix, self.partitions = kafka_servers, redis_url, prefix, partitions
        self.topics = topics(prefix)
        self.log = log
        self._processes: list[Any] = []
        ensure_topics(kafka_servers, stream_config(prefix, partitions), self.topics)
        self.producer = connection.producer(kafka_servers)
        self._looker = connection.consumer(kafka_servers)
        self._consumers: dict[str, tuple[KafkaConsumer, list[Any]]] = {}

    def start(self, instance: str = "a", *, floor: int = 1_000_000) -> Any:
        """A stream process; the one after it has another hash seed, as after any restart."""
        argv = [self.kafka_servers, self.prefix, str(self.partitions), instance, self.redis_url, str(floor)]
        with self.log.open("ab") as log:
            process = start_forked(["tests.stream.process", *argv], stderr=log, group=len(self._processes) % 2)
        self._processes.append(process)
        return process

    def send(self, lines: list[tuple[str, str, bytes]]) -> None:
        for kind, key, raw in lines:
            topic = self.topics.impressions if kind == "impression" else self.topics.feedback
            self.producer.send(topic, raw, key.encode())
        self.producer.flush()

    def send_end(self, event_time_ms: int = 2_000_000_000) -> None:
        """Move event time of every partition past all windows."""
        for p in range(self.partitions):
            event = impression(0, event_time_ms, impression_id=f"end{p}")
            self.producer.send(self.topics.impressions, json.dumps(event).encode(), b"end", partition=p)
            event = feedback(0, "like", 1, event_time_ms) | {"impression_id": f"end{p}"}
            self.producer.send(self.topics.feedback, json.dumps(event).encode(), b"end", partition=p)
        self.producer.flush()

    def read(self, topic: str) -> list[Any]:
        """Every committed record of a topic now, by partition and offset."""
        consumer, records = self._consumer_of(topic)
        ends = consumer.end_offsets(list(consumer.assignment()))
        while any(consumer.position(at) < end for at, end in ends.items()):
            for batch in consumer.poll(timeout_ms=100).values():
                records += batch
        return sorted(records, key=lambda r: (r.partition, r.offset))

    def _consumer_of(self, topic: str) -> tuple[KafkaConsumer, list[Any]]:
        """One consumer per topic for the whole test, and what it has read: kafka-python's close is slow and racy."""
        if topic not in self._consumers:
            consumer = connection.consumer(self.kafka_servers)
            partitions = [TopicPartition(topic, p) for p in range(self.partitions)]
            consumer.assign(partitions)
            for at, offset in consumer.beginning_offsets(partitions).items():
                consumer.seek(at, offset)
            self._consumers[topic] = consumer, []
        return self._consumers[topic]

    def dead_letters(self) -> list[Any]:
        return [r for t in (self.topics.impressions, self.topics.feedback) for r in self.read(t + ".dlq")]

    def await_examples(self, count: int) -> list[dict[str, Any]]:
        """The examples, once there are `count` of them."""
        return [json.loads(r.value) for r in self.await_records(lambda: self.read(self.topics.examples), count)]

    def await_dead_letters(self, count: int) -> list[Any]:
        """The dead letters, once there are `count` of them: a broker ends a transaction topic by topic."""
        return self.await_records(self.dead_letters, count)

    def await_records(self, read: Callable[[], list[Any]], count: int) -> list[Any]:
        """What is read, once it is `count` records; fails with the process's log otherwise."""
        found: list[Any] = []

        def enough() -> bool:
            found[:] = read()
            return len(found) >= count

        await_that(enough, 80.0, lambda: f"{len(found)} of {count} records; log:\n{self.log.read_text()[-3000:]}")
        return found

    def end(self, topic: str) -> int:
        """How many offsets a topic has, up to the first open transaction."""
        partitions = [TopicPartition(topic, p) for p in range(self.partitions)]
        return sum(self._looker.end_offsets(partitions).values())

    def begins(self, topic: str) -> list[int]:
        """The oldest offset of each partition."""
        partitions = [TopicPartition(topic, p) for p in range(self.partitions)]
        return list(self._looker.beginning_offsets(partitions).values())

    def close(self) -> None:
        for process in self._processes:
            if process.poll() is None:
                stop_child(process)
        self.producer.close()
        for consumer in (self._looker, *(consumer for consumer, _ in self._consumers.values())):
            consumer.close()


def await_that(condition: Callable[[], bool], seconds: float, what: Callable[[], str]) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what()
        time.sleep(0.05)


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What this room logged: on a busy machine kafka-python has warnings of its own."""
    return [record.message for record in caplog.records if record.name.startswith("stream.")]


@pytest.fixture
def harness(kafka: str, redis_url: str, topic_prefix: str, tmp_path: Path) -> Iterator[StreamHarness]:
    made = StreamHarness(kafka, redis_url, topic_prefix, tmp_path / "stream.log")
    yield made
    made.close()


@pytest.fixture
def scenario() -> Scenario:
    return Scenario(300)
