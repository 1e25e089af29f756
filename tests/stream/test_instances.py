"""Several instances share the partitions: aggregates are those of all examples, whoever is killed, whatever moves."""

import random
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.stream.conftest import StreamHarness, await_that
from tests.stream.pair import Scenario
from tests.stream.test_exactly_once import assert_whole, await_aggregates


@pytest.fixture
def six(request: Any, kafka: str, redis_url: str, topic_prefix: str, tmp_path: Path) -> Iterator[StreamHarness]:
    """Six partitions on the embedded broker; where `request.param` is "apache", on Apache Kafka."""
    servers = request.getfixturevalue("apache_kafka").servers if request.param == "apache" else kafka
    made = StreamHarness(servers, redis_url, topic_prefix, tmp_path / "stream.log", partitions=6)
    yield made
    made.close()


on_apache = pytest.param("apache", marks=pytest.mark.kafka_home)


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


@pytest.mark.parametrize("six", ["embedded", on_apache], indirect=True)
def test_three_instances_over_six_partitions_under_kills_give_the_aggregates_of_all_examples(six):
    scenario, chance = Scenario(600, seed=9), random.Random(9)
    instances = Instances(six, "abc")
    shares = [f"partitions [{first}, {first + 1}] restored" for first in (0, 2, 4)]
    await_that(lambda: all(share in six.log.read_text() for share in shares), 60, six.log.read_text)
    parts = 6
    for part in range(parts):
        joined(six, scenario.lines[len(scenario.lines) * part // parts : len(scenario.lines) * (part + 1) // parts])
        time.sleep(chance.random() * 0.3)  # the random moment
        instances.kill(chance.choice("abc"))
    six.send_end()
    examples = six.await_examples(len(scenario.labels))
    assert_whole(six, scenario, examples)
    await_aggregates(six, examples)
    assert sum(six.begins(six.topics.aggregate_updates)) > 0  # what was counted is deleted


@pytest.mark.parametrize("six", [on_apache], indirect=True)
def test_what_an_instance_leaves_is_counted_on_by_the_others(six):
    """A takeover, which the embedded broker does not make."""
    scenario = Scenario(300, seed=10)
    instances = Instances(six, "ab")
    await_that(lambda: six.log.read_text().count("partitions [") >= 2, 60, six.log.read_text)
    joined(six, scenario.lines[:400])
    instances.stop("a")
    joined(six, scenario.lines[400:])
    six.send_end()
    examples = six.await_examples(len(scenario.labels))
    await_aggregates(six, examples)
