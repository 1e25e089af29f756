"""Several instances share the partitions: aggregates are those of all examples, whoever is killed and whatever moves."""

import random
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stream.conftest import StreamHarness, await_that
from tests.stream.pair import Scenario
from tests.stream.test_exactly_once import assert_whole, await_aggregates


@pytest.fixture
def six(kafka: str, redis_url: str, topic_prefix: str, tmp_path: Path) -> Iterator[StreamHarness]:
    made = StreamHarness(kafka, redis_url, topic_prefix, tmp_path / "stream.log", partitions=6)
    yield made
    made.close()


class Instances:
    """Stream processes by name; each one that is killed is started again."""

    def __init__(self, harness: StreamHarness, names: str) -> None:
        self._harness = harness
        self._processes = {name: self._start(name) for name in names}

    def kill(self, name: str) -> None:
        """By signal 9, at whatever it is doing; a new one of its name starts at once."""
        self._processes[name].kill()
        self._processes[name].wait()
        self._processes[name] = self._start(name)

    def stop(self, name: str) -> None:
        """For good: the others take over what it had."""
        self._processes.pop(name).send_signal(signal.SIGTERM)

    def _start(self, name: str) -> subprocess.Popen[bytes]:
        return self._harness.start(name, floor=20_000)


def joined(harness: StreamHarness, lines: list[tuple[str, str, bytes]]) -> None:
    """Send lines, and return when some of what they make is committed."""
    before = harness.end(harness.topics.join_state)
    harness.send(lines)
    await_that(lambda: harness.end(harness.topics.join_state) > before, 60, harness.log.read_text)


def test_three_instances_over_six_partitions_under_kills_give_the_aggregates_of_all_examples(six):
    scenario, chance = Scenario(600, seed=9), random.Random(9)
    instances = Instances(six, "abc")
    parts = 6
    for part in range(parts):
        joined(six, scenario.lines[len(scenario.lines) * part // parts : len(scenario.lines) * (part + 1) // parts])
        instances.kill(chance.choice("abc"))
    six.send_end()
    examples = six.await_examples(len(scenario.labels) + six.partitions)
    assert_whole(six, scenario, [e for e in examples if not e["impression_id"].startswith("end")])
    await_aggregates(six, examples)


def test_what_an_instance_leaves_is_counted_on_by_the_others(six):
    scenario = Scenario(300, seed=10)
    instances = Instances(six, "ab")
    joined(six, scenario.lines[:400])
    instances.stop("a")
    joined(six, scenario.lines[400:])
    six.send_end()
    examples = six.await_examples(len(scenario.labels) + six.partitions)
    await_aggregates(six, examples)
