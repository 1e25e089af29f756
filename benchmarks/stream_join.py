"""How fast the stream process joins, and how soon it goes on after a kill -9: real broker, real Redis, features read.

python benchmarks/stream_join.py [IMPRESSIONS]
"""

import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
from kafka import KafkaConsumer, TopicPartition

from features.aggregates import Aggregates
from features.config import AggregateConfig
from features.reader import OnlineReader
from features.spec import Feature, FeatureSpec
from lab.embedded import EmbeddedKafka, EmbeddedRedis
from runtime.child import start_child, stop_child
from runtime.telemetry import StopSignal, configure_logging
from stream import connection
from stream.config import StreamConfig, Topics
from stream.replay import replay
from stream.run import run_stream
from stream.tasks import TaskSpec
from stream.topics import ensure_topics

if TYPE_CHECKING:
    import subprocess

CONFIG, TOPICS = StreamConfig(), Topics()
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


def main(count: int) -> None:
    """Send three records per impression, join them all, kill the process, send again."""
    with EmbeddedKafka() as kafka, EmbeddedRedis() as redis, tempfile.TemporaryDirectory() as folder:
        ensure_topics(kafka.servers, CONFIG, TOPICS)
        looker = connection.consumer(kafka.servers)
        send(kafka.servers, Path(folder), 0, count)
        process = start(kafka.servers, redis.url)
        await_requests(looker, 1)
        began, cpu = time.monotonic(), cpu_seconds(process.pid)
        await_requests(looker, count)
        seconds, cpu = time.monotonic() - began, cpu_seconds(process.pid) - cpu
        print(f"joined {3 * count / seconds:,.0f} records/s, {cpu / (3 * count) * 1e6:.0f} us of CPU each")
        process.kill()
        process.wait()
        before = end(looker)
        send(kafka.servers, Path(folder), count, 1)
        began, process = time.monotonic(), start(kafka.servers, redis.url)
        await_requests(looker, before + 1)
        print(f"kill -9 to the first commit of the next process: {time.monotonic() - began:.1f} s, its start included")
        stop_child(process)
        looker.close()


def send(kafka_servers: str, folder: Path, first: int, count: int) -> None:
    """Send impressions 10 ms apart, each with two feedback events one second later."""
    rows = []
    for n in range(first, first + count):
        of = {"impression_id": f"i{n}"}
        rows.append((n * 10, {"type": "impression", **of, "user_id": n % 5_000, "item_id": n % 1_000}))
        rows += [(n * 10 + 1_000, {"type": "feedback", **of, "task": task.name, "value": n % 2}) for task in TASKS]
    rows.sort(key=lambda row: row[0])
    path = folder / "events.jsonl"
    path.write_text("".join(json.dumps(row | {"event_time_ms": at}) + "\n" for at, row in rows))
    replay(path, kafka_servers, TOPICS, rate=None, max_lag=None, progress=lambda *_: None)


def start(kafka_servers: str, redis_url: str) -> "subprocess.Popen[bytes]":
    """The stream process as a child."""
    return start_child([sys.executable, __file__, "child", kafka_servers, redis_url])


def cpu_seconds(pid: int) -> float:
    """CPU time that a process has used."""
    return sum(psutil.Process(pid).cpu_times()[:2])


def await_requests(looker: KafkaConsumer, count: int) -> None:
    """Return when so many impressions are committed (each commit adds one marker)."""
    while end(looker) < count:
        time.sleep(0.02)


def end(looker: KafkaConsumer) -> int:
    """Offsets of committed teacher requests."""
    at = TopicPartition(TOPICS.teacher_requests, 0)
    return int(looker.end_offsets([at])[at])


def child(kafka_servers: str, redis_url: str) -> None:
    """Run the stream process."""
    configure_logging("WARNING")
    run_stream(
        kafka_servers,
        CONFIG,
        TOPICS,
        TASKS,
        SPEC,
        OnlineReader(SPEC, redis_url),
        lambda: Aggregates(AGGREGATES),
        NoPush(),
        "bench",
        StopSignal().install(),
    )


if __name__ == "__main__":
    child(*sys.argv[2:]) if sys.argv[1:2] == ["child"] else main(int(sys.argv[1]) if sys.argv[1:] else 20_000)
