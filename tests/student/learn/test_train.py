"""The learner process on a real broker and a real Redis."""

import contextlib
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from lab.embedded import free_port
from runtime.child import stop_child
from runtime.errors import ConfigurationError, DataLossError
from runtime.telemetry import StopSignal
from stream.config import StreamConfig, Topics
from stream.events import Example
from stream.kafka import connection
from stream.kafka.groups import LEARNER_GROUP, lag
from stream.kafka.topics import ensure_topics
from stream.log.examples import ExampleReader
from student.evaluate.arms import ARMS
from student.evaluate.history import Point, defined, read_history
from student.learn.config import PublishConfig
from student.learn.learner import Learner
from student.learn.process.publishing import Publication
from student.learn.process.teacher_source import Teaching
from student.learn.process.train import Examples, run_training
from student.learn.setup import LearnerSetup
from student.versions.registry import Registry
from teacher_cache.cache.cache import LogitCache
from tests.forked import start_forked
from tests.student.learn.threads import in_thread

TEACHER = "t1"
TASKS = ("finish", "like", "rating")


class Process:
    """What a learner process is given."""

    def __init__(self, kafka_servers: str, topics: Topics, redis_url: str, registry: Registry) -> None:
        self.kafka_servers = kafka_servers
        self.topics = topics
        self.redis_url = redis_url
        self.registry = registry

    def write(self, examples: list[Example]) -> None:
        producer = connection.producer(self.kafka_servers)
        for i, example in enumerate(examples):
            producer.send(self.topics.examples, example.model_dump_json().encode(), partition=i % 2)
        producer.flush()
        producer.close()

    def run(
        self, setup: LearnerSetup, stop: StopSignal, every_seconds: float = 60.0, topic_id: str | None = None
    ) -> None:
        has_teacher = bool(setup.teacher_tasks)
        run_training(
            setup,
            Examples(lambda offsets: ExampleReader(self.kafka_servers, self.topics, offsets), topic_id),
            Teaching(LogitCache(self.redis_url, TEACHER, TASKS, 3600), TEACHER) if has_teacher else None,
            Publication(self.registry, PublishConfig(every_seconds=every_seconds, keep=1000)),
            stop,
        )

    @contextlib.contextmanager
    def running(self, setup: LearnerSetup, every_seconds: float = 0.05, topic_id: str | None = None) -> Iterator[None]:
        with in_thread(lambda stop: self.run(setup, stop, every_seconds, topic_id)):
            yield

    def examples_published(self) -> int:
        version = self.registry.champion()
        return self.registry.load_manifest(version).examples if version else -1

    def wait_for(self, examples: int) -> None:
        deadline = time.monotonic() + 60
        while self.examples_published() < examples:
            assert time.monotonic() < deadline, f"{self.examples_published()} of {examples} examples published"
            time.sleep(0.01)


@pytest.fixture
def topics(kafka: str, topic_prefix: str) -> Topics:
    topics = Topics(prefix=topic_prefix)
    ensure_topics(kafka, StreamConfig(topic_prefix=topic_prefix, partitions=2), topics)
    return topics


@pytest.fixture
def process(kafka: str, topics: Topics, redis_url: str, tmp_path: Path) -> Process:
    return Process(kafka, topics, redis_url, Registry(tmp_path / "versions"))


def patient(toy: Any, seconds: float) -> LearnerSetup:
    """The toy setup whose batches wait that long for logits."""
    setup: LearnerSetup = toy.setup(wait_seconds=seconds)
    return setup


def test_a_first_version_serves_before_the_first_example(toy: Any, process: Process) -> None:
    with process.running(patient(toy, 0)):
        process.wait_for(0)
    assert process.registry.versions() == ["v000001"]
    assert process.registry.load_model("v000001")[0].examples == 0


def test_without_a_teacher_the_labels_alone_are_learnt(toy: Any, process: Process) -> None:
    alone: LearnerSetup = toy.setup(teacher_tasks=(), distillation=(), wait_seconds=0.0)
    process.write([toy.example(i) for i in range(40)])
    with process.running(alone):
        process.wait_for(40)
    version = process.registry.champion()
    assert version is not None
    manifest = process.registry.load_manifest(version)
    assert (manifest.teacher_tasks, manifest.teacher_version) == ([], None)
    arms = manifest.metrics["like"]
    assert arms["student"].log_loss == arms["control"].log_loss
    assert "teacher" not in arms
    with process.running(alone):  # goes on from it
        process.write([toy.example(i) for i in range(40, 60)])
        process.wait_for(60)


def test_a_kill_between_the_first_version_and_its_promotion_is_made_good(toy: Any, process: Process) -> None:
    with process.running(patient(toy, 0)):
        process.wait_for(0)
    (process.registry.folder / "champion").unlink()
    with process.running(patient(toy, 0)):
        process.wait_for(0)
    assert process.registry.versions() == ["v000001"]


def test_a_stop_publishes_what_is_learnt_and_where_to_go_on(toy: Any, process: Process, kafka: str) -> None:
    process.write([toy.example(n) for n in range(83)])
    with process.running(patient(toy, 0)):
        process.wait_for(83)
    version = process.registry.champion()
    manifest, _ = process.registry.load_model(str(version))
    assert manifest.examples == 83
    assert sum(manifest.offsets.values()) == 83
    assert manifest.metrics["like"]["student"].count == 80
    admin = connection.admin(kafka)
    assert lag(admin, process.topics, LEARNER_GROUP).records == 0
    admin.close()
    process.write([toy.example(n) for n in range(83, 90)])
    with process.running(patient(toy, 0)):
        process.wait_for(90)
    assert process.examples_published() == 90


def test_logits_that_come_within_the_wait_are_learnt(toy: Any, process: Process) -> None:
    examples = [toy.example(n) for n in range(8)]
    process.write(examples)
    with process.running(patient(toy, 20)):
        process.wait_for(0)
        logit_BT = toy.logits(examples, misses=False)
        cache = LogitCache(process.redis_url, TEACHER, TASKS, 3600)
        cache.put(cache.keys_of(examples), logit_BT, time.time_ns() // 1_000_000)
        process.wait_for(8)
    manifest, _ = process.registry.load_model(str(process.registry.champion()))
    assert manifest.metrics["like"]["teacher"].count == 8


def test_without_redis_the_labels_alone_are_learnt(toy: Any, process: Process) -> None:
    process.redis_url = f"redis://127.0.0.1:{free_port()}/0"
    process.write([toy.example(n) for n in range(80)])
    with process.running(patient(toy, 0.2)):
        process.wait_for(80)
    manifest, _ = process.registry.load_model(str(process.registry.champion()))
    assert "teacher" not in manifest.metrics["like"]


def test_logits_that_nothing_learns_from_are_not_waited_for(toy: Any, process: Process) -> None:
    off = tuple(d.model_copy(update={"weight": 0.0}) for d in toy.distillation)
    process.write([toy.example(n) for n in range(8)])
    with process.running(toy.setup(distillation=off, wait_seconds=600)):
        process.wait_for(8)


def test_a_stop_ends_the_wait_for_logits_at_once(toy: Any, process: Process) -> None:
    process.write([toy.example(n) for n in range(8)])
    with process.running(patient(toy, 600)):
        process.wait_for(0)
        began = time.monotonic()
    assert time.monotonic() - began < 5
    assert process.examples_published() == 0


def test_another_setup_is_refused_with_all_that_changed(toy: Any, process: Process) -> None:
    with process.running(toy.setup()):
        process.wait_for(0)
    changed = toy.setup(
        student=toy.student.model_copy(update={"trunk": [8, 5], "learning_rate": 0.5}),
        distillation=toy.distillation[1:],
    )
    with pytest.raises(ConfigurationError) as error:
        process.run(changed, StopSignal())
    assert "version v000001 was learnt with another setup" in str(error.value)
    assert "student.trunk.1: was 4, is now 5" in str(error.value)
    assert "distillation: was [['like', 'like'], ['rating', 'rating']], is now [['rating', 'rating']]" in str(
        error.value
    )
    assert "learning_rate" not in str(error.value)


@pytest.fixture
def spawn(kafka: str, topics: Topics, redis_url: str) -> Iterator[Callable[[Path], Any]]:
    """Starts learners; none outlives its test."""
    children = []

    def start(folder: Path) -> Any:
        program = ["tests.student.learn.train_process", kafka, topics.prefix, redis_url, str(folder)]
        children.append(start_forked(program))
        return children[-1]

    yield start
    for child in children:
        child.kill()
        child.wait(10)


def test_a_killed_learner_learns_every_example_once_bit_for_bit(
    toy: Any, process: Process, spawn: Callable[[Path], Any], tmp_path: Path, equal: Callable[..., None]
) -> None:
    total = 1104  # whole micro-batches
    examples = [toy.example(n) for n in range(total)]
    logit_BT = toy.logits(examples, misses=False)
    cache = LogitCache(process.redis_url, TEACHER, TASKS, 3600)
    cache.put(cache.keys_of(examples), logit_BT, time.time_ns() // 1_000_000)
    process.write(examples)

    uninterrupted = Process(process.kafka_servers, process.topics, process.redis_url, Registry(tmp_path / "whole"))
    with uninterrupted.running(patient(toy, 0)):  # in this process: with another hash seed than those that are killed
        uninterrupted.wait_for(total)
    killed_at = []
    for kill_after in (8, 400):
        child = spawn(process.registry.folder)
        process.wait_for(kill_after)
        child.kill()
        assert child.wait(10) == -signal.SIGKILL
        killed_at.append(process.examples_published())
    assert killed_at[-1] < total, "all was learnt before the last kill: the test proves nothing"
    child = spawn(process.registry.folder)
    process.wait_for(total)
    assert stop_child(child) == 0

    ends = [p.registry.load_learner(str(p.registry.champion())) for p in (process, uninterrupted)]
    equal(ends[0][1], ends[1][1])
    assert ends[0][2] == ends[1][2]
    assert ends[0][0].offsets == ends[1][0].offsets
    histories = [read_history(p.registry.metrics_folder) for p in (process, uninterrupted)]
    assert [point.examples for point in histories[0]] == [504, 1000]
    assert rows_of(histories[0], ARMS) == rows_of(histories[1], ARMS)
    for point in (history[-1] for history in histories):  # what was served depends on when versions were published
        arms = point.slices["whole"]["like"]
        assert arms["served_student"].count == arms["served_control"].count == arms["student"].count
    offline = Learner(patient(toy, 0))
    offline.learn(examples, logit_BT)
    equal(offline.tensors(), ends[0][1])


def rows_of(history: Sequence[Point], arms: Sequence[str]) -> list[tuple[str, str, str, str, float]]:
    """Arm, task, slice, metric and value, point by point."""
    rows = [row for point in history for row in defined(point.slices)]
    return [(arm, task, part, metric, value) for task, arm, part, metric, value in rows if arm in arms]


def test_a_version_of_a_topic_that_was_made_anew_is_refused_with_what_to_do(toy: Any, process: Process) -> None:
    process.write([toy.example(n) for n in range(64)])
    setup = patient(toy, 0)
    with process.running(setup, topic_id="first"):
        process.wait_for(64)
    newest = process.registry.load_manifest(str(process.registry.latest()))
    assert newest.topic_id == "first"
    with pytest.raises(DataLossError, match=r"the id first, .* now has second: it was deleted .* new folder"):
        process.run(setup, StopSignal(), topic_id="second")
    process.registry = Registry(process.registry.folder / "new")
    with process.running(setup, topic_id="second"):
        process.wait_for(64)


def test_a_version_without_a_topics_id_goes_on_and_the_next_one_has_it(toy: Any, process: Process) -> None:
    process.write([toy.example(n) for n in range(64)])
    with process.running(patient(toy, 0)):
        process.wait_for(64)
    process.write([toy.example(n) for n in range(64, 128)])
    with process.running(patient(toy, 0), topic_id="known"):
        process.wait_for(128)
    newest = process.registry.load_manifest(str(process.registry.latest()))
    assert (newest.topic_id, newest.offsets) == ("known", {"0": 64, "1": 64})
    with process.running(patient(toy, 0)):  # a broker that tells no id
        process.wait_for(128)
