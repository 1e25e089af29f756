"""What the join's state costs when it is large: commits, restart, log and memory with N remembered ids.

Impressions go into the join directly, without topics, validation and features; the join, the state log and the
transactions are those of the stream process, and so are the group and its heartbeats. First N ids are remembered, which
are put beside the join, 5,000 in a transaction. Then 50 full transactions are written (2,500 impressions with one
feedback each, with their examples and teacher requests), while event time forgets as many ids as come. The process is
killed, and another one restores. At last event time jumps past everything, so that all is closed and forgotten, a part
in each step and transaction. With KAFKA_HOME an Apache Kafka takes the place of the embedded broker.

PYTHONPATH=. python benchmarks/state_growth.py [--ids 1000000]
"""

import argparse
import json
import os
import platform
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
from kafka import TopicPartition

from features.aggregates import Aggregates
from lab.embedded import EmbeddedKafka
from runtime.child import start_child
from runtime.errors import ServiceUnavailableError
from stream import connection
from stream.config import StreamConfig, Topics
from stream.events import Feedback, TeacherRequest
from stream.inputs import Inputs
from stream.join import Joined
from stream.messages import Message
from stream.partition import Partition
from stream.state_log import FLOOR_BYTES, StateLog, entries_of
from stream.tasks import TaskSpec
from stream.topics import ensure_topics
from stream.transactions import Outgoing, Transactions

RESULTS = Path(__file__).with_name("results") / "state_growth.json"
TOPICS = Topics()
TASKS = [TaskSpec(name="like", kind="binary", window_seconds=20)]
WINDOW_MS = 20_000
BATCH = 2_500  # impressions with one feedback each: as much as the stream joins between two transactions at most
START_MS = 1_700_000_000_000
JOINED = 50 * BATCH
MESSAGE = Message(TOPICS.impressions, 0, 0, b"", b"")


class Process:
    """The parts of a stream process that write and restore state, with one partition."""

    def __init__(self, kafka_servers: str, ids: int) -> None:
        self.config = StreamConfig(dedup_seconds=ids / 1000)  # an impression each millisecond
        self.admin = connection.admin(kafka_servers)
        self.log = StateLog(kafka_servers, self.admin, TOPICS.join_state, FLOOR_BYTES)
        self.transactions = Transactions(kafka_servers, self.admin, TOPICS, "bench")
        self.inputs = Inputs(kafka_servers, TOPICS, "bench")
        self.partition: Partition
        self.commits: list[tuple[float, float]] = []
        """Seconds of each commit by the clock, and of this process's CPU time."""
        self.steps: list[tuple[float, float]] = []
        """The same of each step of event time."""
        self._joined = Joined()

    def restore(self) -> dict[str, float]:
        """Join the group and restore, anew when the partition was lost meanwhile, as the stream process does."""
        restores = 0
        self.inputs.poll(100)
        while not restores or self.inputs.are_moving() or self.inputs.have_moved():
            self.inputs.poll(100)
            if not self.inputs.are_moving() and self.inputs.claim() == [0]:
                began, cpu = time.monotonic(), time.process_time()
                self.partition = Partition(0, TOPICS, self.config, TASKS, lambda: Aggregates([]))
                self.partition.restore(self.log.restore(0), began * 1000)
                self.partition.start_at(self.inputs.start(0, self.partition.positions))
                seconds, cpu = time.monotonic() - began, time.process_time() - cpu
                restores += 1
                self.inputs.poll(0)
        return {"restores": restores, "seconds": round(seconds, 1), "cpu_seconds": round(cpu, 1)}

    def reach(self, event_time_ms: int) -> None:
        """Let event time of both inputs reach this, in as many steps as that takes."""
        for topic in self.partition.inputs:
            self.partition.watermark.observe(topic, event_time_ms)
        while self.step():
            pass

    def step(self) -> bool:
        """One step of event time; whether there is more to do."""
        began, cpu = time.monotonic(), time.process_time()
        self.partition.join.advance(self.partition.watermark.value_ms)
        has_more = self.partition.join.is_exhausted
        self.steps.append((time.monotonic() - began, time.process_time() - cpu))
        joined = self.partition.join.drain()
        self._joined.requests += joined.requests
        self._joined.examples += joined.examples
        return has_more

    def commit(self) -> None:
        """As the stream process does it."""
        joined, self._joined = self._joined, Joined()
        self.inputs.poll(0)
        self.inputs.check_membership(self.admin)
        began, cpu = time.monotonic(), time.process_time()
        records = [
            Outgoing(topic, 0, one.impression_id.encode(), one.model_dump_json().encode())
            for topic, outputs in ((TOPICS.teacher_requests, joined.requests), (TOPICS.examples, joined.examples))
            for one in outputs
        ]
        records += self.log.append(0, self.partition.changes(), self.partition.entry)
        positions = {TopicPartition(topic, 0): at for topic, at in self.partition.positions.items()}
        offsets = self.transactions.commit(records, positions, self.inputs.identity)
        self.log.committed(records, offsets)
        self.commits.append((time.monotonic() - began, time.process_time() - cpu))


def started(kafka_servers: str, ids: int) -> Process:
    """A process, once the broker can coordinate groups: a new one takes a moment."""
    for _ in range(60):
        try:
            return Process(kafka_servers, ids)
        except ServiceUnavailableError:
            time.sleep(1)
    return Process(kafka_servers, ids)


def id_of(number: int) -> str:
    """As long as a UUID."""
    return f"{number:08x}-7c7e-4f0a-9d3b-{number:012x}"


def request(number: int) -> TeacherRequest:
    return TeacherRequest.model_construct(
        impression_id=id_of(number),
        user_id=number % 100_000,
        item_id=number % 10_000,
        event_time_ms=START_MS + number,
        context={"hour": number % 24},
        spec_id="0123456789abcdef",
        features=[number % 24, *(n / 7 for n in range(16))],
    )


def remember(process: Process, ids: int) -> None:
    """Ids as of impressions that have closed; through the join they would take an hour."""
    closed = process.partition.join._closed  # noqa: SLF001 - see above
    for number in range(ids):
        closed.add(id_of(number), START_MS + number + WINDOW_MS + ids)
        if number % (2 * BATCH) == 2 * BATCH - 1:
            process.reach(START_MS + number + WINDOW_MS)
            process.commit()


def join(process: Process, first: int, count: int) -> None:
    """Impressions with feedback, which close when their window has passed."""
    for number in range(first, first + count):
        one = request(number)
        process.partition.join.impression(one, MESSAGE)
        feedback = Feedback.model_construct(
            impression_id=one.impression_id, task="like", value=1, event_time_ms=one.event_time_ms
        )
        process.partition.join.feedback(feedback, MESSAGE)
        process.reach(one.event_time_ms)
        if number % BATCH == BATCH - 1:
            process.commit()


def jump(process: Process, event_time_ms: int) -> dict[str, Any]:
    """Event time passes everything that is there, with a transaction after each step."""
    process.commits, process.steps = [], []
    for topic in process.partition.inputs:
        process.partition.watermark.observe(topic, event_time_ms)
    while process.step():
        process.commit()
    process.commit()
    return {"jump_steps": spread(process.steps), "jump_commits": spread(process.commits)}


def grow(kafka_servers: str, ids: int, told: Path) -> None:
    """The process that is killed."""
    process = started(kafka_servers, ids)
    process.restore()
    remember(process, ids)
    growing = process.commits
    process.commits = []
    join(process, ids + WINDOW_MS, JOINED)
    result = {"commits_while_growing": spread(growing), "commits": spread(process.commits), "memory": memory()}
    told.write_text(json.dumps(result))
    time.sleep(600)  # until it is killed


def restart(kafka_servers: str, ids: int, told: Path) -> None:
    """The process that restores what is left of the first one."""
    process = started(kafka_servers, ids)
    restored = process.restore()
    knows = process.partition.join.knows
    numbers = range(ids + WINDOW_MS + JOINED)
    remembered = sum(knows(id_of(number)) for number in numbers)
    result: dict[str, Any] = {"restart": restored, "ids_after_restart": remembered}
    join(process, numbers.stop, BATCH)
    result |= {"memory_after_restart": memory(), "next_commit": spread(process.commits)}
    told.write_text(json.dumps(result | jump(process, START_MS * 2)))
    os._exit(0)


def spread(measured: list[tuple[float, float]]) -> dict[str, float]:
    """How many, the median and the longest, and how much of it is this process's own work."""
    seconds, cpu = (sorted(one) for one in zip(*measured, strict=True))
    return {
        "count": len(measured),
        "median_seconds": round(seconds[len(measured) // 2], 3),
        "longest_seconds": round(seconds[-1], 3),
        "median_cpu_seconds": round(cpu[len(measured) // 2], 3),
        "longest_cpu_seconds": round(cpu[-1], 3),
    }


def memory() -> dict[str, int]:
    """Megabytes of this process now and at most."""
    return {
        "megabytes": psutil.Process().memory_info().rss // 10**6,
        "most_megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 // 10**6,
    }


def log_bytes(kafka_servers: str) -> dict[str, float]:
    """Keys and values in the state log, and of these what is live."""
    at = TopicPartition(TOPICS.join_state, 0)
    reader = connection.consumer(kafka_servers)
    reader.assign([at])
    reader.seek(at, reader.beginning_offsets([at])[at])
    end = reader.end_offsets([at])[at]
    live: dict[str, int] = {}
    total = 0
    while reader.position(at) < end:
        for record in reader.poll(timeout_ms=200).get(at, []):
            for _, key, value in entries_of(record):
                size = len(key) + len(value or b"")
                total += size
                live.pop(key, None)
                if value is not None:
                    live[key] = size
    reader.close()
    alive = sum(live.values())
    return {"log_bytes": total, "live_bytes": alive, "log_over_live": round(total / alive, 2)}


def measure(kafka_servers: str, broker: str, ids: int) -> None:
    """Grow, kill, restore; write and print what was found."""
    ensure_topics(kafka_servers, StreamConfig(), TOPICS)
    result: dict[str, Any] = {
        "command": f"python benchmarks/state_growth.py --ids {ids}",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {broker}",
        "ids": ids,
        "load_average": os.getloadavg()[0],
    }
    with tempfile.TemporaryDirectory() as folder:
        for mode in ("grow", "restart"):
            told = Path(folder) / mode
            child = start_child([sys.executable, __file__, mode, kafka_servers, str(ids), str(told)])
            while child.poll() is None and not told.exists():
                time.sleep(0.1)
            child.kill()
            child.wait()
            result |= json.loads(told.read_text())
            if mode == "grow":
                result |= log_bytes(kafka_servers)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


def main() -> None:
    if sys.argv[1:2] in (["grow"], ["restart"]):
        mode, kafka_servers, ids, told = sys.argv[1:]
        {"grow": grow, "restart": restart}[mode](kafka_servers, int(ids), Path(told))
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ids", type=int, default=1_000_000)
    ids = parser.parse_args().ids
    home = os.environ.get("KAFKA_HOME")
    if home:
        from lab.apache_kafka import ApacheKafka  # noqa: PLC0415 - needs Java

        with ApacheKafka(Path(home)) as kafka:
            measure(kafka.servers, "Apache Kafka", ids)
    else:
        with EmbeddedKafka() as kafka:
            measure(kafka.servers, "embedded broker", ids)


if __name__ == "__main__":
    main()
