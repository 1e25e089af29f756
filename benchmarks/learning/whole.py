"""The learner of the stream: examples from embedded Kafka, logits from embedded Redis, versions published."""

import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from benchmarks.learning.rows import Bench, Measured, Spent, auc_by_arm, now, since
from runtime.telemetry import StopSignal
from stream.kafka import connection
from stream.kafka.topics import ensure_topics
from stream.log.examples import ExampleReader, ExampleRecord
from student.learn.process.publishing import Publication
from student.learn.process.teacher_source import Teaching
from student.learn.process.train import Examples, run_training
from student.versions.registry import Registry
from teacher_cache.cache.cache import LogitCache
from teacher_cache.domain.context_key import ContextKey

PARTITION = 0


def send(bench: Bench, kafka_servers: str) -> None:
    """Every example as the stream writes it."""
    ensure_topics(kafka_servers, bench.project.stream.model_copy(update={"partitions": 1}), bench.project.topics)
    producer = connection.producer(kafka_servers)
    for record in bench.records:
        value = record.example.model_dump_json().encode()
        producer.send(bench.project.topics.examples, value, partition=PARTITION)
    producer.flush()
    producer.close()


def cache_of(bench: Bench, redis_url: str) -> LogitCache:
    names = [task.name for task in bench.setup.teacher_tasks]
    context = ContextKey.seen_by(bench.project.teacher, bench.setup.spec)
    return LogitCache(redis_url, "bench", names, bench.project.teacher.ttl_seconds, context)


def fill(bench: Bench, redis_url: str) -> None:
    """The teacher's logits of every row."""
    examples = [record.example for record in bench.records]
    cache = cache_of(bench, redis_url)
    cache.put(cache.keys_of(examples), bench.logit_NT, time.time_ns() // 1_000_000)


class WholeTopic(ExampleReader):
    """Ends the learning when the topic is learnt; measures from the first poll to then."""

    def __init__(self, bench: Bench, kafka_servers: str, offsets: Mapping[int, int], stop: StopSignal) -> None:
        super().__init__(kafka_servers, bench.project.topics, offsets)
        self._left, self._stop = len(bench.records), stop
        self.began: Spent | None = None
        self.spent = Spent(0.0, 0.0)

    def poll(self, timeout_seconds: float) -> list[ExampleRecord]:
        """The reader's next records; sets the stop when all records have been given and learnt."""
        self.began = self.began or now()
        if not self._left:
            self.spent = since(self.began)
            self._stop.set()
            return []
        records = super().poll(timeout_seconds)
        self._left -= len(records)
        return records


def whole_learner(bench: Bench, kafka_servers: str, redis_url: str) -> Measured:
    stop, sources = StopSignal(), []

    def open_source(offsets: Mapping[int, int]) -> WholeTopic:
        sources.append(WholeTopic(bench, kafka_servers, offsets, stop))
        return sources[-1]

    with tempfile.TemporaryDirectory() as folder:
        registry = Registry(Path(folder))
        run_training(
            bench.setup,
            Examples(open_source),
            Teaching(cache_of(bench, redis_url), "benchmark"),
            Publication(registry, bench.project.publish),
            stop,
        )
        manifest = registry.load_manifest(registry.latest() or "")
    return Measured(sources[0].spent, manifest.examples, auc_by_arm(bench, manifest.metrics))
