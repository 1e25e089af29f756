"""The learner process as two ranks, under torchrun where one is killed, on a real broker and a real Redis."""

import os
import re
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lab.embedded import EmbeddedRedis
from runtime.child import start_child, stop_child
from runtime.errors import GraftError
from stream.config import StreamConfig, Topics
from stream.kafka import connection
from stream.kafka.groups import LEARNER_GROUP, lag
from stream.kafka.topics import ensure_topics
from stream.log.archive import Archive
from stream.log.examples import ExampleReader
from student.evaluate.arms import ALL_ARMS, ARMS
from student.versions.registry import Registry
from tests.forked import start_forked
from tests.student.conftest import Toy
from tests.student.learn.ranks import ROOT, TORCHRUN, rank_environment, start_ranks
from tests.student.learn.train_process import logit_cache

TOTAL = 1000
PARTITIONS = 3  # rank 0 reads two of them, rank 1 one
OFFSETS = {"0": 334, "1": 333, "2": 333}
PROCESS = "tests.student.learn.train_process"

pytestmark = pytest.mark.timeout(240)  # several imports of torch on a busy machine


class Log:
    """TOTAL examples in three partitions, with the logits of all."""

    def __init__(self, toy: Any, kafka: str, redis_url: str) -> None:
        prefix = f"r{uuid.uuid4().hex[:12]}-"
        self.kafka, self.redis_url, self.topics = kafka, redis_url, Topics(prefix=prefix)
        self.children: list[Any] = []
        ensure_topics(kafka, StreamConfig(topic_prefix=prefix, partitions=PARTITIONS), self.topics)
        examples = [toy.example(n) for n in range(TOTAL)]
        producer = connection.producer(kafka)
        for i, example in enumerate(examples):
            producer.send(self.topics.examples, example.model_dump_json().encode(), partition=i % PARTITIONS)
        producer.flush()
        producer.close()
        logit_BT = toy.logits(examples, misses=False)
        cache = logit_cache(redis_url)
        cache.put(cache.keys_of(examples), logit_BT, time.time_ns() // 1_000_000)

    def start(self, folder: Path, how: list[str], stderr: int | None = None, log: Path | None = None) -> Any:
        """One learner: `how` is what runs Python's -m, or ONE_PROCESS."""
        program = [*self.program(folder), *([str(log)] if log else [])]
        if how is ONE_PROCESS:
            child = start_forked(program, env=rank_environment(), stderr=stderr)
        else:
            child = start_child([*how, "-m", *program], env=rank_environment(), cwd=ROOT, stderr=stderr)
        self.children.append(child)
        return child

    def program(self, folder: Path) -> list[str]:
        return [PROCESS, self.kafka, self.topics.prefix, self.redis_url, str(folder)]

    def learn(self, folder: Path, how: list[str], log: Path | None = None) -> Registry:
        """All of it, until the last rank is asked to stop."""
        child, registry = self.start(folder, how, log=log), Registry(folder)
        wait_for(registry, TOTAL, child)
        os.kill(pid_of(folder, 1 if how is TWO_RANKS else 0), signal.SIGTERM)
        assert child.wait(30) == 0
        return registry

    def archived(self, folder: Path, counts: tuple[int, ...]) -> Path:
        """A log of the first so many examples of each partition."""
        reader, archive, records = ExampleReader(self.kafka, self.topics, {}), Archive(folder, {}), []
        while len(records) < TOTAL:
            records += reader.poll(0.1)
        reader.close()
        archive.add([r for r in records if r.offset < counts[r.partition]])
        folder.mkdir()
        archive.flush()
        return folder


ONE_PROCESS: list[str] = []
TWO_RANKS = [TORCHRUN, "--nproc-per-node", "2"]


def wait_for(registry: Registry, examples: int, child: Any) -> int:
    deadline = time.monotonic() + 90
    published = -1
    while published < examples:
        assert child.poll() is None, f"the learner ended at {published} of {examples} examples"
        assert time.monotonic() < deadline, f"{published} of {examples} examples published"
        time.sleep(0.01)  # another process writes the folder
        published = examples_of(registry)
    return published


def examples_of(registry: Registry) -> int:
    version = registry.champion()
    return registry.load_manifest(version).examples if version else -1


def pid_of(folder: Path, rank: int) -> int:
    return int(Path(f"{folder}-{rank}.pid").read_text())


def end_of(registry: Registry) -> Any:
    """Manifest, tensors and state at the end of the log."""
    end = registry.load_learner(str(registry.champion()))
    assert end[0].examples == TOTAL
    assert end[0].offsets == OFFSETS
    return end


def same_but_for_rounding(left: Registry, right: Registry, equal: Callable[..., None]) -> None:
    """Both learnt the same micro-batches in the same order, from the same logits, and learnt alike from them."""
    (one, one_tensors, one_state), (two, two_tensors, two_state) = end_of(left), end_of(right)
    assert one_state == two_state
    exact = ("reservoir/", "item_mean/", "student/running/", "control/running/", "evaluation/label", "evaluation/user")
    equal(*({n: t for n, t in tensors.items() if n.startswith(exact)} for tensors in (one_tensors, two_tensors)))
    # A cold start magnifies rounding (see test_learner_ranks.py): what is learnt is alike, but not to the fifth digit.
    assert set(one.metrics["like"]) == set(two.metrics["like"]) == set(ALL_ARMS)
    for arm in ARMS:
        metrics, other = one.metrics["like"][arm], two.metrics["like"][arm]
        assert (metrics.count, metrics.positives) == (other.count, other.positives)
        np.testing.assert_allclose([metrics.auc, metrics.log_loss], [other.auc, other.log_loss], atol=0.01)


@pytest.fixture(scope="module")
def log(kafka: str) -> Iterator[Log]:
    with EmbeddedRedis() as server:
        log = Log(Toy(), kafka, server.url)
        yield log
        for child in log.children:
            child.kill()
            child.wait(10)


@pytest.fixture(scope="module")
def alone(log: Log, tmp_path_factory: pytest.TempPathFactory) -> Registry:
    return log.learn(tmp_path_factory.mktemp("alone") / "versions", ONE_PROCESS)


@pytest.fixture(scope="module")
def ranks(log: Log, tmp_path_factory: pytest.TempPathFactory) -> Registry:
    """Of two processes in the places where torchrun would have put them."""
    folder = tmp_path_factory.mktemp("ranks") / "versions"
    ranks = start_ranks(2, log.program(folder))
    log.children += ranks
    wait_for(Registry(folder), TOTAL, ranks[0])
    ranks[1].terminate()
    assert [rank.wait(30) for rank in ranks] == [0, 0]
    return Registry(folder)


def test_two_ranks_learn_every_example_once_in_the_micro_batches_of_one_process(
    log: Log, alone: Registry, ranks: Registry, equal: Callable[..., None]
) -> None:
    same_but_for_rounding(alone, ranks, equal)
    admin = connection.admin(log.kafka)
    assert lag(admin, log.topics, LEARNER_GROUP).records == 0
    admin.close()


def test_a_stop_publishes_what_two_ranks_have_learnt_since_the_last_version(
    log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing else publishes: the next version by the clock is an hour away. torchrun stops both at once."""
    monkeypatch.setenv("PUBLISH_SECONDS", "3600")
    folder, said = tmp_path / "versions", tmp_path / "stderr"
    with said.open("wb") as stderr:
        ranks = start_ranks(2, log.program(folder), stderr.fileno())
    log.children += ranks
    learnt = learnt_by(said, ranks[0])
    assert examples_of(Registry(folder)) == 0
    for rank in ranks:
        rank.terminate()
    assert [rank.wait(30) for rank in ranks] == [0, 0]
    assert examples_of(Registry(folder)) >= learnt


def learnt_by(said: Path, rank: Any) -> int:
    """How many examples the first rank has learnt by its own log, once it tells of some."""
    deadline = time.monotonic() + 90
    while not (found := re.findall(r"learnt examples=(\d+)", said.read_text())):
        assert rank.poll() is None, said.read_text()
        assert time.monotonic() < deadline, said.read_text()
        time.sleep(0.05)  # another process writes the file
    return int(found[-1])


@pytest.mark.slow
def test_a_rank_that_is_killed_is_restarted_with_the_others_and_all_end_bit_for_bit_the_same(
    log: Log, ranks: Registry, tmp_path: Path, equal: Callable[..., None]
) -> None:
    folder = tmp_path / "versions"
    child, registry = log.start(folder, [*TWO_RANKS, "--max-restarts", "2"]), Registry(folder)
    killed_at = 0
    for rank in range(2):
        killed_at = wait_for(registry, killed_at + 8 + 400 * rank, child)
        assert killed_at < TOTAL, "all is learnt already: the test proves nothing"
        os.kill(pid_of(folder, rank), signal.SIGKILL)
    wait_for(registry, TOTAL, child)
    os.kill(pid_of(folder, 0), signal.SIGTERM)
    assert child.wait(30) == 0
    (_, tensors, state), (_, uninterrupted, its_state) = end_of(registry), end_of(ranks)
    equal(tensors, uninterrupted)
    assert state == its_state


@pytest.mark.slow
def test_a_killed_rank_ends_the_other_with_an_error_and_one_process_goes_on(
    log: Log, alone: Registry, tmp_path: Path, equal: Callable[..., None]
) -> None:
    folder = tmp_path / "versions"
    child, registry = log.start(folder, TWO_RANKS, stderr=subprocess.PIPE), Registry(folder)
    with child.stderr:
        assert wait_for(registry, 8, child) < TOTAL
        os.kill(pid_of(folder, 1), signal.SIGKILL)
        said = child.stderr.read().decode()
    assert child.wait(30) == 1
    assert "error: rank 0 of 2: another rank ended or did not answer" in said
    assert 8 <= examples_of(registry) < TOTAL
    same_but_for_rounding(log.learn(folder, ONE_PROCESS), alone, equal)


@pytest.mark.slow
def test_two_ranks_go_on_where_one_process_was_killed(
    log: Log, alone: Registry, tmp_path: Path, equal: Callable[..., None]
) -> None:
    folder = tmp_path / "versions"
    child = log.start(folder, ONE_PROCESS)
    assert wait_for(Registry(folder), 8, child) < TOTAL
    child.kill()
    child.wait(10)
    same_but_for_rounding(log.learn(folder, TWO_RANKS), alone, equal)


@pytest.mark.slow
def test_two_ranks_learn_a_history_first_then_kafka(
    log: Log, ranks: Registry, tmp_path: Path, equal: Callable[..., None]
) -> None:
    """Their partitions have histories of different lengths, one of them none."""
    history = log.archived(tmp_path / "log", (200, 0, 333))
    end, other = (end_of(r) for r in (log.learn(tmp_path / "versions", TWO_RANKS, history), ranks))
    equal(end[1], other[1])


@pytest.mark.slow
def test_ranks_whose_torchrun_is_killed_end_and_let_the_next_ones_go_on(
    log: Log, ranks: Registry, tmp_path: Path, equal: Callable[..., None]
) -> None:
    folder = tmp_path / "versions"
    child, registry = log.start(folder, TWO_RANKS), Registry(folder)
    assert wait_for(registry, 8, child) < TOTAL
    child.kill()
    deadline = time.monotonic() + 30
    while not is_free(registry):
        assert time.monotonic() < deadline
        time.sleep(0.05)  # the ranks are no children of this process
    assert examples_of(registry) < TOTAL
    equal(end_of(log.learn(folder, TWO_RANKS))[1], end_of(ranks)[1])


def is_free(registry: Registry) -> bool:
    try:
        with registry.claim():
            return True
    except GraftError:
        return False


@pytest.mark.slow  # tests/graft/test_torchrun.py ends in a stop of torchrun
def test_a_stop_of_torchrun_publishes_what_is_learnt(log: Log, tmp_path: Path) -> None:
    child = log.start(tmp_path / "versions", TWO_RANKS, stderr=subprocess.DEVNULL)
    registry = Registry(tmp_path / "versions")
    wait_for(registry, 8, child)
    stop_child(child, 30)  # torchrun's own exit code is 1 for a SIGTERM
    versions = registry.versions()
    assert registry.champion() == versions[-1]
    assert not list(registry.folder.glob(".*/")), "a rank was killed within a publish"
