"""The learner that reads an example log first and then the topic, on a real broker and a real Redis."""

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kafka import TopicPartition

from stream.config import StreamConfig, Topics
from stream.kafka import connection
from stream.kafka.topics import ensure_topics
from stream.log.archive import Archive
from stream.log.example_log import ExampleLog, log_then_topic
from stream.log.examples import ExampleReader, ExampleRecord
from student.learn.config import PublishConfig
from student.learn.process.publishing import Publication
from student.learn.process.teacher_source import Teaching
from student.learn.process.train import Examples, ExampleSource, run_training
from student.versions.registry import Registry
from teacher_cache.cache.cache import LogitCache
from tests.student.learn.threads import in_thread

TEACHER = "t1"
COUNT = 400


class Pair:
    """A topic of COUNT examples in two partitions, with the logits of all of them."""

    def __init__(self, toy: Any, kafka_servers: str, prefix: str, redis_url: str) -> None:
        self.kafka_servers, self.topics = kafka_servers, Topics(prefix=prefix)
        ensure_topics(kafka_servers, StreamConfig(topic_prefix=prefix, partitions=2), self.topics)
        examples = [toy.example(n) for n in range(COUNT)]
        producer = connection.producer(kafka_servers)
        for i, example in enumerate(examples):
            producer.send(self.topics.examples, example.model_dump_json().encode(), partition=i % 2)
        producer.flush()
        producer.close()
        self.cache = LogitCache(redis_url, TEACHER, ("finish", "like", "rating"), 3600)
        self.cache.put(self.cache.keys_of(examples), toy.logits(examples, misses=False), time.time_ns() // 1_000_000)
        self.setup = toy.setup()

    def archive(self, folder: Path, counts: tuple[int, int]) -> ExampleLog:
        """Move the first so many examples of each partition from the topic into a log."""
        reader = ExampleReader(self.kafka_servers, self.topics, {})
        records = []
        while len(records) < COUNT:
            records += reader.poll(0.1)
        reader.close()
        archive = Archive(folder, {})
        for r in records:
            if r.offset < counts[r.partition]:
                archive.add([r])
        folder.mkdir()
        archive.flush()
        admin = connection.admin(self.kafka_servers)
        ends = {TopicPartition(self.topics.examples, p): end for p, end in archive.offsets.items()}
        admin.delete_records(ends)
        admin.close()
        return ExampleLog(folder, self.setup.spec.spec_id)

    @contextlib.contextmanager
    def learning(self, registry: Registry, open_source: Callable[[Any], ExampleSource]) -> Iterator[None]:
        examples, teaching = Examples(open_source), Teaching(self.cache, TEACHER)
        publication = Publication(registry, PublishConfig(every_seconds=0.05, keep=1000))
        with in_thread(lambda stop: run_training(self.setup, examples, teaching, publication, stop)):
            yield

    def learn(self, registry: Registry, open_source: Callable[[Any], ExampleSource], at_least: int) -> int:
        """Learn until so many examples are in a version, stop, and say how many there are then."""
        with self.learning(registry, open_source):
            deadline = time.monotonic() + 40
            while published(registry) < at_least:
                assert time.monotonic() < deadline, f"{published(registry)} of {at_least} examples published"
                time.sleep(0.005)
        return published(registry)


class FirstOnly:
    """A source that has nothing more to give after its first `left` records."""

    def __init__(self, source: ExampleSource, left: int) -> None:
        self._source, self._left = source, left
        self.lag, self.commit, self.close = source.lag, source.commit, source.close

    def poll(self, timeout_seconds: float) -> list[ExampleRecord]:
        records = list(self._source.poll(timeout_seconds))[: self._left]
        self._left -= len(records)
        return records


def published(registry: Registry) -> int:
    version = registry.champion()
    return registry.load_manifest(version).examples if version else -1


@pytest.fixture
def pair(toy: Any, kafka: str, topic_prefix: str, redis_url: str) -> Pair:
    return Pair(toy, kafka, topic_prefix, redis_url)


@pytest.mark.parametrize("counts", [(120, 120), (37, 150)])
def test_history_first_then_kafka_gives_the_same_weights_bit_for_bit_as_kafka_alone(
    pair: Pair, tmp_path: Path, equal: Callable[..., None], counts: tuple[int, int]
) -> None:
    kafka_alone, mixed = Registry(tmp_path / "kafka"), Registry(tmp_path / "mixed")
    pair.learn(kafka_alone, lambda offsets: ExampleReader(pair.kafka_servers, pair.topics, offsets), COUNT)
    log = pair.archive(tmp_path / "log", counts)

    def open_source(offsets: Any) -> ExampleSource:
        return log_then_topic(log, pair.kafka_servers, pair.topics, offsets)

    assert pair.learn(mixed, lambda offsets: FirstOnly(open_source(offsets), 100), 100) == 100
    assert pair.learn(mixed, open_source, COUNT) == COUNT
    (left, right) = (r.load_learner(str(r.champion())) for r in (kafka_alone, mixed))
    assert left[0].offsets == right[0].offsets == {"0": COUNT // 2, "1": COUNT // 2}
    equal(left[1], right[1])
    assert left[2] == right[2]
