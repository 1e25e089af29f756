"""`python -m tests.chaos.fuzz --messages 1000000 --seed 1`: one stream process, a learner, and every poison there is.

Ends with 1 when a message has no outcome or two, when a process ended, or when weights are not finite. With KAFKA_HOME
it runs on that Apache Kafka; the embedded broker keeps only what is still to be read.
"""

import argparse
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from random import Random
from typing import NamedTuple

import numpy as np
from kafka import KafkaProducer

from lab.dev.run import LIMITS
from stream.kafka import connection
from stream.kafka.groups import LEARNER_GROUP, STREAM_GROUP, lag
from student.versions.registry import Registry
from tests.chaos.events import Sent
from tests.chaos.follower import Follower
from tests.chaos.fuzz_messages import BLOCK_MS, Fuzz
from tests.chaos.processes import resident_bytes
from tests.chaos.report import report
from tests.chaos.troubles import KeysOfAnotherType
from tests.chaos.verdict import Line, message_lines, outcomes_of
from tests.chaos.world import LEARNER, Shape, World
from tests.poison import null_header_values
from tests.simulation.schedule import partition_of

_SHAPE = Shape(
    partitions=2,
    streams=1,
    window_seconds=3,
    idle_seconds=1,
    publish_seconds=0.5,  # the embedded broker keeps little, and a learner is behind what it has published
    dedup_seconds=600,
    micro_batch=64,
)
_CODECS = (None, "gzip", "snappy", "lz4", "zstd")
_CHUNK_BLOCKS = 16  # about 1,000 messages of one codec; all are taken before the next one's
_BLOCK_MESSAGES = 50  # at least
_STALLED_SECONDS = 120.0
_SETTLED_SECONDS = 60.0
_TOLD_SECONDS = 10.0
_MOST_BYTES = 950_000  # of a value that the inputs' topics take uncompressed
_MOST_BEHIND = 20_000  # messages, on a broker that keeps all
_LARGE = 100_000  # bytes of which few fit into what the embedded broker keeps
_OPEN_RECORDS = 500  # that the learner has not published: an open micro-batch, and markers of transactions
_GROWTH = 1.1  # of the most memory from the first half to the second, at most
_MEGABYTE = 1_000_000


class Sample(NamedTuple):
    """The stream's memory after so many messages."""

    messages: int
    resident_bytes: int


class FuzzRun:
    """Sends `count` messages no faster than they are read, and watches the stream's memory."""

    def __init__(self, world: World, count: int, seed: int) -> None:
        self._world, self._count = world, count
        self._random = Random(seed)
        start_ms = time.time_ns() // 1_000_000 - (count // _BLOCK_MESSAGES + 100) * BLOCK_MS
        self._fuzz = Fuzz(seed, start_ms, round(world.shape.window_seconds * 1000))
        self._admin = connection.admin(world.kafka.servers)
        self.counts: Counter[tuple[str, bytes | None]] = Counter()
        """How often each value was sent to each topic."""
        self.invalid: set[bytes | None] = set()
        self.invalid_sent = self.sent = 0
        self._most_behind = _MOST_BEHIND if world.is_apache else 2_000
        self.samples: list[Sample] = []
        self.faults: list[str] = []

    def send_all(self, follower: Follower, tell: Callable[[str], None]) -> None:
        """Send all; in the middle half some keys in Redis are of another type."""
        spoilt = KeysOfAnotherType(self._world, self._random)
        changes = [(self._count / 4, spoilt.begin), (self._count * 3 / 4, spoilt.end)]
        producers = {codec: connection.producer(self._world.kafka.servers, compression_type=codec) for codec in _CODECS}
        blocks = self._fuzz.blocks()
        told_at = time.monotonic()
        while self.sent < self._count and not self.faults:
            chunk = [message for block in islice(blocks, _CHUNK_BLOCKS) for message in block]
            self._send(producers, chunk)
            if changes and self.sent > changes[0][0]:
                changes.pop(0)[1]()
            is_large = any(message.value and len(message.value) > _LARGE for message in chunk)
            self.await_readers(follower, 0 if is_large else self._most_behind)
            self.samples.append(Sample(self.sent, resident_bytes([self._world.processes.id_of(self._stream)])))
            if time.monotonic() > told_at + _TOLD_SECONDS:
                told_at = time.monotonic()
                megabytes = self.samples[-1].resident_bytes / _MEGABYTE
                tell(f"[{self._world.seconds():7.1f} s] {self.sent:,} messages, the stream has {megabytes:.0f} MB")
        for _, change in changes:
            change()
        for producer in producers.values():
            producer.close()

    def await_readers(self, follower: Follower, most_behind: int) -> None:
        """Return when stream, learner and follower are so little behind, in messages; a fault when they stand still."""
        topics = self._world.project.topics

        def are_near() -> bool:
            behind = [lag(self._admin, topics, group).records for group in (STREAM_GROUP, LEARNER_GROUP)]
            limits = most_behind, most_behind + _OPEN_RECORDS
            is_read = self.sent - len(follower.inputs) <= most_behind
            return bool(follower.fault) or (is_read and all(b <= most for b, most in zip(behind, limits, strict=True)))

        if not self._world.await_that(are_near, _STALLED_SECONDS):
            self.faults.append(f"the readers stand still after {self.sent:,} messages")

    @property
    def _stream(self) -> str:
        return self._world.streams[0]

    def _send(self, producers: Mapping[str | None, KafkaProducer], chunk: Sequence[Sent]) -> None:
        """All by one codec; what is too large for a topic by gzip. Offsets have the order of the messages."""
        codec = before = self._random.choice(_CODECS)
        for message in chunk:
            self.counts[message.topic, message.value] += 1
            if message.is_invalid:
                self.invalid.add(message.value)
                self.invalid_sent += 1
            size = len(message.value or b"")
            codec_of = "gzip" if size > _MOST_BYTES else codec
            if codec_of != before:
                producers[before].flush()
            before = codec_of
            producers[codec_of].send(
                getattr(self._world.project.topics, message.topic),
                message.value,
                message.key,
                list(message.headers),
                partition=partition_of(message.key, self._world.shape.partitions),
            ).add_errback(lambda error: self.faults.append(f"Kafka refused a message: {error!r}"))
            self.sent += 1
        producers[before].flush()


def run_fuzz(count: int, seed: int, folder: Path, kafka_home: str | None, tell: Callable[[str], None]) -> list[Line]:
    """Run it in `folder`, which must be empty; the lines of the verdict."""
    with World(folder, _SHAPE, kafka_home, None if kafka_home else LIMITS) as world:
        run = FuzzRun(world, count, seed)
        topics = world.project.topics
        world.start(*world.streams, LEARNER)
        if not world.await_ready():
            return [Line("start", "not ready", [name for name in world.ports if not world.is_ready(name)])]
        with Follower(world.kafka.servers, topics, _SHAPE.partitions, run.invalid, keeps_json=False) as follower:
            began = time.monotonic()
            with null_header_values():
                run.send_all(follower, tell)
            run.await_readers(follower, 0)
            if follower.fault:
                return [Line("read", "the verdict cannot be given", [follower.fault, *run.faults])]
            seconds = time.monotonic() - began
            world.await_that(lambda: not any(outcomes_of(world, follower).faults()), _SETTLED_SECONDS)
            ended = [str(end) for end in world.processes.ended]
            world.processes.stop(*world.streams, LEARNER)
            return [
                Line("speed", f"{run.sent / seconds:,.0f} messages/s, {seconds:.0f} s", run.faults),
                *message_lines(follower, run.counts, run.invalid_sent, outcomes_of(world, follower)),
                weights_line(world),
                memory_line(run.samples),
                Line("ended by themselves", f"{len(ended)}", ended),
            ]


def weights_line(world: World) -> Line:
    """The newest version has learnt all examples, and its tensors are finite."""
    registry = Registry(world.versions)
    version = registry.latest()
    if version is None:
        return Line("weights", "no version", ["the learner has published no version"])
    manifest, tensors, _ = registry.load_learner(version)
    arms = {name: tensor for name, tensor in tensors.items() if name.startswith(("student/", "control/"))}
    assert arms, f"{version} has no tensors of an arm"
    odd = [name for name, tensor in arms.items() if not np.isfinite(tensor.astype(np.float64)).all()]
    set_aside = sum(len(path.read_bytes().splitlines()) for path in world.versions.glob("set_aside*.jsonl"))
    value = f"{version}, of {manifest.examples:,} examples, is finite; {set_aside} examples set aside"
    return Line("weights", value, [f"{name} is not finite" for name in odd])


def memory_line(samples: Sequence[Sample]) -> Line:
    """The stream's memory: at first, at most, and how it rises in the last tenth. It is not to grow without end."""
    last = samples[-max(2, len(samples) // 10) :]
    rise = np.polyfit([s.messages for s in last], [s.resident_bytes for s in last], 1)[0] if len(samples) > 2 else 0.0
    first, most = samples[0].resident_bytes, max(sample.resident_bytes for sample in samples)
    halves = samples[: len(samples) // 2] or samples, samples[len(samples) // 2 :]
    before, after = (max(sample.resident_bytes for sample in half) for half in halves)
    grown = [f"at most {before:,} bytes in the first half, {after:,} in the second"] if after > _GROWTH * before else []
    slope = f"{rise * 100_000 / _MEGABYTE:+.2f} MB per 100,000 messages in the last tenth"
    return Line("memory", f"{first / _MEGABYTE:.0f} MB at first, {most / _MEGABYTE:.0f} MB at most, {slope}", grown)


def main() -> None:
    """Run it, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.fuzz", description=__doc__)
    parser.add_argument("--messages", type=int, default=100_000, help="how many (default: 100,000)")
    parser.add_argument("--seed", type=int, default=1, help="draws all of them (default: 1)")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="run in this empty folder and leave it (logs)")
    arguments = parser.parse_args()
    report(
        arguments.keep,
        lambda folder, kafka_home, tell: run_fuzz(arguments.messages, arguments.seed, folder, kafka_home, tell),
    )


if __name__ == "__main__":
    main()
