"""How fast the stream process joins, over a bare loop; and how soon it goes on after a kill -9.

    python benchmarks/stream_join.py [IMPRESSIONS] [--json FILE]

The bare loop is what kafka-python costs without any join: it polls the same records, decodes and encodes each one's
JSON, and produces it, in one transaction each half second. Both have a real broker, the same clients and the same
settings; the stream process also reads features from a real Redis. They take turns.
"""

import argparse
import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import psutil
from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition
from kafka.errors import GroupIdNotFoundError
from kafka.structs import OffsetAndMetadata
from pydantic_core import from_json, to_json

from features.aggregates import Aggregates
from features.config import AggregateConfig
from features.online.reader import OnlineReader
from features.spec import Feature, FeatureSpec
from lab.embedded import EmbeddedKafka, EmbeddedRedis
from runtime.child import start_child, stop_child
from runtime.telemetry import StopSignal, configure_logging
from stream.config import StreamConfig, Topics
from stream.kafka import connection
from stream.kafka.groups import STREAM_GROUP, group_id
from stream.kafka.topics import ensure_topics
from stream.process.run import run_stream
from stream.replay.replay import replay
from stream.tasks import TaskSpec

if TYPE_CHECKING:
    import subprocess

CONFIG = StreamConfig()
TURNS = 3
TASKS = [TaskSpec(name=name, kind="binary", window_seconds=60) for name in ("like", "love")]
AGGREGATES = [AggregateConfig(entity="user", push_source="user", columns={"likes": "sum(like)"})]
SPEC = FeatureSpec(
    feast_project="bench",
    user_join_key="user",
    item_join_key="item",
    user_id_type="int",
    item_id_type="int",
    entity_key_serialization_version=3,
    features=tuple(
        Feature(
            name=f"{source}:{n}", source=source, role="dense", dtype="float", default=0.0, view=source, feature=f"{n}"
        )
        for source in ("user", "item")
        for n in range(8)
    ),
)


class NoPush:
    """The aggregates are kept and logged, but go nowhere."""

    def push(
        self,
        _aggregates: Aggregates,
        changed: Mapping[str, Sequence[int | str]],
        _event_time_ms: int,
        _positions: Mapping[int, int],
    ) -> int:
        """Write nothing."""
        return len(changed)


class Speed(NamedTuple):
    """Input records per second, and CPU seconds of the process for each."""

    records_per_second: float
    cpu_seconds: float


def main(count: int, json_file: Path | None) -> None:
    """Send three records per impression; read them with both, then kill the stream process and send again."""
    speeds: dict[Callable[..., None], list[Speed]] = {run_bare_loop: [], run_stream_process: []}
    with EmbeddedKafka() as kafka, EmbeddedRedis() as redis, tempfile.TemporaryDirectory() as folder:
        for turn in range(TURNS):
            for reader, found in speeds.items():
                topics = Topics(prefix=f"{reader.__name__}-{turn}-")
                ensure_topics(kafka.servers, CONFIG, topics)
                send(kafka.servers, topics, Path(folder), 0, count)
                found.append(speed(reader, kafka.servers, redis.url, topics, count))
        recovery = recovery_seconds(kafka.servers, redis.url, topics, Path(folder), count)
    bare, stream = (
        Speed(*(statistics.median(values) for values in zip(*found, strict=True))) for found in speeds.values()
    )
    print(f"bare loop  {bare.records_per_second:,.0f} records/s, {bare.cpu_seconds * 1e6:.0f} us of CPU each")
    print(f"joined     {stream.records_per_second:,.0f} records/s, {stream.cpu_seconds * 1e6:.0f} us of CPU each")
    over = stream.records_per_second / bare.records_per_second
    print(f"over the bare loop: {over:.2f} x (medians of {TURNS} turns)")
    print(f"kill -9 to the first commit of the next process: {recovery:.1f} s, its start included")
    if json_file:
        result = {
            "records_per_second": round(stream.records_per_second),
            "over_bare_loop": round(over, 3),
            "bare_records_per_second": round(bare.records_per_second),
            "cpu_us_per_record": round(stream.cpu_seconds * 1e6, 1),
            "recovery_seconds": round(recovery, 2),
            "impressions": count,
            "turns": TURNS,
            "command": f"python benchmarks/stream_join.py {count}",
            "machine": f"{psutil.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
        }
        json_file.write_text(json.dumps(result, indent=2) + "\n")


def speed(reader: Callable[..., None], kafka_servers: str, redis_url: str, topics: Topics, count: int) -> Speed:
    """That of one process of `reader`, from its first commit to the end of the inputs."""
    process = start(reader, kafka_servers, redis_url, topics)
    with closing(connection.admin(kafka_servers)) as admin:
        first = await_read(admin, topics, 1)
        began, cpu = time.monotonic(), cpu_seconds(process.pid)
        records = await_read(admin, topics, 3 * count) - first
        seconds, cpu = time.monotonic() - began, cpu_seconds(process.pid) - cpu
    stop_child(process)
    return Speed(records / seconds, cpu / records)


def recovery_seconds(kafka_servers: str, redis_url: str, topics: Topics, folder: Path, count: int) -> float:
    """From a kill -9 of the stream process to the first commit of the next one."""
    with connection.consumer(kafka_servers) as looker:
        process, before = start(run_stream_process, kafka_servers, redis_url, topics), end(looker, topics)
        send(kafka_servers, topics, folder, count, 1)
        await_requests(looker, topics, before + 1)
        process.kill()
        process.wait()
        before = end(looker, topics)
        send(kafka_servers, topics, folder, count + 1, 1)
        began, process = time.monotonic(), start(run_stream_process, kafka_servers, redis_url, topics)
        await_requests(looker, topics, before + 1)
        seconds = time.monotonic() - began
        stop_child(process)
    return seconds


def send(kafka_servers: str, topics: Topics, folder: Path, first: int, count: int) -> None:
    """Send impressions 10 ms apart, each with two feedback events one second later."""
    rows = []
    for n in range(first, first + count):
        of = {"impression_id": f"i{n}"}
        rows.append((n * 10, {"type": "impression", **of, "user_id": n % 5_000, "item_id": n % 1_000}))
        rows += [(n * 10 + 1_000, {"type": "feedback", **of, "task": task.name, "value": n % 2}) for task in TASKS]
    rows.sort(key=lambda row: row[0])
    path = folder / "events.jsonl"
    path.write_text("".join(json.dumps(row | {"event_time_ms": at}) + "\n" for at, row in rows))
    replay(path, kafka_servers, topics, max_lag=None, progress=lambda *_: None)


def start(reader: Callable[..., None], kafka_servers: str, redis_url: str, topics: Topics) -> "subprocess.Popen[bytes]":
    """The reader as a child process."""
    return start_child([sys.executable, __file__, reader.__name__, kafka_servers, redis_url, topics.prefix])


def cpu_seconds(pid: int) -> float:
    """CPU time that a process has used."""
    return sum(psutil.Process(pid).cpu_times()[:2])


def await_read(admin: KafkaAdminClient, topics: Topics, count: int) -> int:
    """Return when so many records of the inputs are read and committed: how many they are."""
    group = group_id(topics, STREAM_GROUP)
    while True:
        with suppress(GroupIdNotFoundError):
            offsets = admin.list_group_offsets(group).get(group, {})
            found = sum(at.offset for tp, at in offsets.items() if tp.topic in {topics.impressions, topics.feedback})
            if found >= count:
                return int(found)
        time.sleep(0.02)


def await_requests(looker: KafkaConsumer, topics: Topics, count: int) -> None:
    """Return when so many impressions are committed (each commit adds one marker)."""
    while end(looker, topics) < count:
        time.sleep(0.02)


def end(looker: KafkaConsumer, topics: Topics) -> int:
    """Offsets of committed teacher requests."""
    at = TopicPartition(topics.teacher_requests, 0)
    return int(looker.end_offsets([at])[at])


def run_bare_loop(kafka_servers: str, _redis_url: str, topics: Topics) -> None:
    """Decode, encode and produce each record; an impression becomes a teacher request, feedback an example."""
    outputs = {topics.impressions: topics.teacher_requests, topics.feedback: topics.examples}
    consumer = connection.consumer(kafka_servers, group_id=group_id(topics, STREAM_GROUP), max_poll_records=1_000)
    producer = connection.producer(kafka_servers, f"{topics.prefix}bare")
    producer.init_transactions()
    inputs = [TopicPartition(topic, 0) for topic in outputs]
    consumer.assign(inputs)
    consumer.seek_to_beginning(*inputs)
    stop = StopSignal().install()
    while not stop.is_set():
        producer.begin_transaction()
        due = time.monotonic() + CONFIG.commit_seconds
        while time.monotonic() < due:
            for records in consumer.poll(timeout_ms=100).values():
                for record in records:
                    producer.send(outputs[record.topic], to_json(from_json(record.value)), record.key, partition=0)
        offsets = {at: OffsetAndMetadata(consumer.position(at), "", -1) for at in inputs}
        producer.send_offsets_to_transaction(offsets, consumer.config["group_id"])
        producer.commit_transaction()


def run_stream_process(kafka_servers: str, redis_url: str, topics: Topics) -> None:
    """Run the stream process."""
    run_stream(
        kafka_servers,
        CONFIG,
        topics,
        TASKS,
        SPEC,
        OnlineReader(SPEC, redis_url),
        lambda: Aggregates(AGGREGATES),
        NoPush(),
        "bench",
        StopSignal().install(),
    )


READERS = {reader.__name__: reader for reader in (run_bare_loop, run_stream_process)}

if __name__ == "__main__":
    if sys.argv[1:] and sys.argv[1] in READERS:
        configure_logging("WARNING")
        READERS[sys.argv[1]](sys.argv[2], sys.argv[3], Topics(prefix=sys.argv[4]))
    else:
        parser = argparse.ArgumentParser()
        parser.add_argument("impressions", type=int, nargs="?", default=60_000)
        parser.add_argument("--json", type=Path, help="where to write the result")
        options = parser.parse_args()
        main(options.impressions, options.json)
