"""The logits of the example log: what the cache had of every example is learnt again without Redis, bit for bit."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from lab.embedded import free_port
from runtime.child import start_child, stop_child
from stream.config import StreamConfig, Topics
from stream.kafka import connection
from stream.kafka.topics import ensure_topics
from stream.log.archive import run_archive
from stream.log.example_log import ExampleLog
from stream.log.examples import ExampleRecord
from student.versions.registry import Registry
from teacher_cache.cache.archive_look_up import ArchiveLookUp
from teacher_cache.cache.cache import LogitCache
from tests.forked import start_forked
from tests.stream.conftest import await_that
from tests.student.conftest import Toy
from tests.student.learn.ranks import ROOT, TORCHRUN, rank_environment
from tests.student.learn.threads import in_thread
from tests.student.learn.train_process import GENERATION, TASKS, TEACHER, logit_cache

TOTAL = 900
PARTITIONS = 2

pytestmark = pytest.mark.timeout(240)  # several imports of torch on a busy machine


class Pair:
    """TOTAL examples in two partitions, and their logits in Redis: every third is a miss."""

    def __init__(self, toy: Toy, kafka: str, prefix: str, redis_url: str, folder: Path) -> None:
        self.kafka, self.redis_url, self.topics, self.folder = kafka, redis_url, Topics(prefix=prefix), folder
        self.log = folder / "log"
        self.children: list[Any] = []
        ensure_topics(kafka, StreamConfig(topic_prefix=prefix, partitions=PARTITIONS), self.topics)
        self.toy = toy
        examples = [toy.example(n) for n in range(TOTAL)]
        self.put()
        producer = connection.producer(kafka)
        for n, example in enumerate(examples):
            producer.send(self.topics.examples, example.model_dump_json().encode(), partition=n % PARTITIONS)
        producer.flush()
        producer.close()

    def put(self) -> None:
        """The toy's logits."""
        examples = [self.toy.example(n) for n in range(TOTAL)]
        logit_BT = self.toy.logits(examples)
        known = [n for n in range(TOTAL) if logit_BT[n, 0] == logit_BT[n, 0]]
        cache = logit_cache(self.redis_url)
        keys = cache.keys_of(examples[n] for n in known)
        cache.put(keys, logit_BT[known], time.time_ns() // 1_000_000)

    def learner(self, name: str, *, how: list[str] | None = None, log: bool = False, redis_url: str = "") -> Any:
        arguments = [self.kafka, self.topics.prefix, redis_url or self.redis_url, str(self.folder / name)]
        program = ["tests.student.learn.train_process", *arguments, *([str(self.log)] if log else [])]
        environment = rank_environment()
        if how is None:
            self.children.append(start_forked(program, env=environment))
        else:
            self.children.append(start_child([*how, "-m", *program], env=environment, cwd=ROOT))
        return self.children[-1]

    @contextmanager
    def archiving(self) -> Iterator[None]:
        look_up = ArchiveLookUp(logit_cache(self.redis_url), GENERATION)
        with in_thread(
            lambda stop: run_archive(self.log, self.kafka, self.topics, stop, look_up=look_up, every_seconds=0.1)
        ):
            yield

    def registry(self, name: str) -> Registry:
        return Registry(self.folder / name)

    def published(self, name: str) -> int:
        version = self.registry(name).champion()
        return self.registry(name).load_manifest(version).examples if version else -1

    def await_published(self, name: str, examples: int) -> None:
        await_that(lambda: self.published(name) >= examples, 90, lambda: f"{name}: {self.published(name)}")

    def archived(self) -> list[ExampleRecord]:
        """The records of the log so far."""
        return [record for some in ExampleLog(self.log).read({}) for record in some] if self.log.is_dir() else []

    def model(self, name: str) -> bytes:
        registry = self.registry(name)
        return (registry.folder / str(registry.latest()) / "model.safetensors").read_bytes()


@pytest.fixture
def pair(toy: Any, kafka: str, topic_prefix: str, redis_url: str, tmp_path: Path) -> Iterator[Pair]:
    pair = Pair(toy, kafka, topic_prefix, redis_url, tmp_path)
    yield pair
    for child in pair.children:
        child.kill()
        child.wait(10)


def no_redis() -> str:
    return f"redis://127.0.0.1:{free_port()}/0"


def state(registry: Registry) -> Any:
    return registry.load_learner(str(registry.latest()))


@pytest.mark.parametrize(
    "how",
    [
        pytest.param(None, id="one process"),
        pytest.param([TORCHRUN, "--nproc-per-node", "2"], id="two ranks", marks=pytest.mark.slow),
    ],
)
def test_from_the_log_alone_comes_the_live_student_bit_for_bit_without_redis(
    pair: Pair, equal: Callable[..., None], how: list[str] | None
) -> None:
    with pair.archiving():
        live = pair.learner("live", how=how)
        pair.await_published("live", TOTAL)
        await_that(lambda: len(pair.archived()) == TOTAL, 60, lambda: str(len(pair.archived())))
    if how is None:
        assert stop_child(live) == 0
    else:
        os.kill(int(Path(f"{pair.folder / 'live'}-0.pid").read_text()), signal.SIGTERM)
        assert live.wait(30) == 0
    again = pair.learner("again", log=True, redis_url=no_redis(), how=how)
    pair.await_published("again", TOTAL)
    again.kill()
    assert pair.model("again") == pair.model("live")
    (manifest, tensors, its_state), (other, others, other_state) = map(state, map(pair.registry, ("live", "again")))
    equal(tensors, others)
    assert (its_state, manifest.offsets, manifest.examples) == (other_state, other.offsets, other.examples)
    hits = sum(record.archived is not None for record in pair.archived())
    assert 0 < manifest.metrics["like"]["teacher"].count <= hits < TOTAL
    pair.learner("labels", redis_url=no_redis())
    pair.await_published("labels", TOTAL)
    assert pair.model("labels") != pair.model("live"), "the logits change nothing: the test proves nothing"


def test_examples_are_archived_without_logits_while_redis_is_away(pair: Pair) -> None:
    examples = [pair.toy.example(n) for n in range(3)]
    look_up = ArchiveLookUp(LogitCache(no_redis(), TEACHER, TASKS, 3600), GENERATION)
    assert look_up(examples) == [None] * 3
    assert ArchiveLookUp(logit_cache(pair.redis_url), GENERATION)(examples) != [None] * 3
