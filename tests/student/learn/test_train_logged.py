"""The logits of the example log: from the log alone, without Redis, comes the live student bit for bit."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.embedded import free_port
from runtime.child import start_child, stop_child
from stream.config import StreamConfig, Topics
from stream.kafka import connection
from stream.kafka.topics import ensure_topics
from stream.log.example_log import ExampleLog
from stream.log.logged_logits import LoggedLogits
from student.versions.registry import Registry
from tests.forked import start_forked
from tests.stream.conftest import await_that
from tests.student.conftest import Toy
from tests.student.learn.ranks import ROOT, TORCHRUN, rank_environment
from tests.student.learn.train_process import GENERATION, logit_cache

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
        self.put(1.0)
        producer = connection.producer(kafka)
        for n, example in enumerate(examples):
            producer.send(self.topics.examples, example.model_dump_json().encode(), partition=n % PARTITIONS)
        producer.flush()
        producer.close()

    def put(self, factor: float) -> None:
        """Logits times a factor, as a teacher that scores again would change them."""
        examples = [self.toy.example(n) for n in range(TOTAL)]
        logit_BT = self.toy.logits(examples)
        known = [n for n in range(TOTAL) if logit_BT[n, 0] == logit_BT[n, 0]]
        cache = logit_cache(self.redis_url)
        keys = cache.keys_of(examples[n] for n in known)
        cache.put(keys, factor * logit_BT[known], time.time_ns() // 1_000_000)

    def learner(self, name: str, *, how: list[str] | None = None, log: bool = False, redis_url: str = "") -> Any:
        arguments = [self.kafka, self.topics.prefix, redis_url or self.redis_url, str(self.folder / name)]
        program = ["tests.student.learn.train_process", *arguments, *([str(self.log)] if log else [])]
        environment = rank_environment()
        if how is None:
            self.children.append(start_forked(program, env=environment))
        else:
            self.children.append(start_child([*how, "-m", *program], env=environment, cwd=ROOT))
        return self.children[-1]

    def archive(self) -> Any:
        self.children.append(
            start_forked(["tests.stream.archive_process", str(self.log), self.kafka, self.topics.prefix])
        )
        return self.children[-1]

    def registry(self, name: str) -> Registry:
        return Registry(self.folder / name)

    def published(self, name: str) -> int:
        version = self.registry(name).champion()
        return self.registry(name).load_manifest(version).examples if version else -1

    def await_published(self, name: str, examples: int) -> None:
        await_that(lambda: self.published(name) >= examples, 90, lambda: f"{name}: {self.published(name)}")

    def known(self) -> int:
        """How many of the archived examples the log tells the logits of."""
        if not self.log.is_dir():
            return 0
        records = [record for found in ExampleLog(self.log).read({}) for record in found]
        return sum(one is not None for one in LoggedLogits(self.log, GENERATION).of(records))

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
    archive, live = pair.archive(), pair.learner("live", how=how)
    pair.await_published("live", TOTAL)
    if how is None:
        assert stop_child(live) == 0
    else:
        os.kill(int(Path(f"{pair.folder / 'live'}-0.pid").read_text()), signal.SIGTERM)
        assert live.wait(30) == 0
    await_that(lambda: pair.known() == TOTAL, 60, lambda: str(pair.known()))
    assert stop_child(archive) == 0
    again = pair.learner("again", log=True, redis_url=no_redis(), how=how)
    pair.await_published("again", TOTAL)
    again.kill()
    assert pair.model("again") == pair.model("live")
    (manifest, tensors, its_state), (other, others, other_state) = map(state, map(pair.registry, ("live", "again")))
    equal(tensors, others)
    assert (its_state, manifest.offsets, manifest.examples) == (other_state, other.offsets, other.examples)
    assert 0 < manifest.metrics["like"]["teacher"].count < TOTAL
    pair.learner("labels", redis_url=no_redis())
    pair.await_published("labels", TOTAL)
    assert pair.model("labels") != pair.model("live"), "the logits change nothing: the test proves nothing"


@pytest.mark.slow
def test_learners_and_archives_killed_at_random_moments_leave_what_the_last_version_used(pair: Pair) -> None:
    """The teacher's logits change meanwhile, so that what is learnt again after a kill is learnt from others."""
    archive = pair.archive()
    for number, examples in enumerate((8, 200, 450)):
        live = pair.learner("live")
        pair.await_published("live", examples)
        live.kill()
        live.wait(10)
        archive.kill()
        archive.wait(10)
        assert pair.published("live") < TOTAL, "all was learnt before the last kill: the test proves nothing"
        pair.put(2.0 + number)
        archive = pair.archive()
    live = pair.learner("live")
    pair.await_published("live", TOTAL)
    assert stop_child(live) == 0
    await_that(lambda: pair.known() == TOTAL, 60, lambda: str(pair.known()))
    assert stop_child(archive) == 0
    pair.learner("again", log=True, redis_url=no_redis())
    pair.await_published("again", TOTAL)
    assert pair.model("again") == pair.model("live")


@pytest.mark.slow
def test_a_second_learner_changes_nothing_of_what_the_first_one_s_log_says(pair: Pair) -> None:
    archive, first = pair.archive(), pair.learner("first")
    pair.await_published("first", TOTAL)
    assert stop_child(first) == 0
    await_that(lambda: pair.known() == TOTAL, 60, lambda: str(pair.known()))
    pair.put(3.0)
    second = pair.learner("second")
    pair.await_published("second", TOTAL)
    assert stop_child(second) == 0
    assert pair.model("second") != pair.model("first")
    third = pair.learner("third", log=True)
    pair.await_published("third", TOTAL)
    assert stop_child(third) == 0
    assert pair.model("third") == pair.model("first")
    assert stop_child(archive) == 0
    pair.learner("fourth", log=True, redis_url=no_redis())
    pair.await_published("fourth", TOTAL)
    assert pair.model("fourth") == pair.model("first")
    ids = {name: pair.registry(name).learner_id() for name in ("first", "second", "third", "fourth")}
    assert len(set(ids.values())) == 4
