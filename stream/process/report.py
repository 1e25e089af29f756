"""What the stream process reports while it works: metrics of committed work, and one log line every few seconds."""

import logging
import time
from collections import Counter as Counts
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from kafka import TopicPartition
from prometheus_client import Counter, Gauge

from stream.join.partition import Partition
from stream.join.step import Effects
from stream.kafka.dead_letters import DeadLetter

RECORDS = Counter("graft_stream_records", "Input messages that were joined or put aside", ["topic"])
EXAMPLES = Counter("graft_stream_examples", "Examples written")
LEFT_OUT = Counter("graft_stream_left_out", "Impressions that became no example, since [sampling] left them out")
DRAWN = Counter("graft_stream_drawn", "Examples among them that nobody was shown: negatives that [sampling] drew")
DEAD_LETTERS = Counter("graft_stream_dead_letters", "Messages that could not be used", ["topic", "reason"])
DUPLICATES = Counter("graft_stream_duplicates", "Impressions whose id had come before", ["topic"])
LAG = Gauge("graft_stream_lag_records", "Messages on the broker that are not joined yet", ["topic"])
PENDING = Gauge("graft_stream_pending_impressions", "Impressions whose attribution window is open")
PARTITIONS = Gauge("graft_stream_partitions", "Partitions that this process has; the processes of a project share them")
UNPUSHED = Gauge("graft_stream_unpushed_entities", "Users and items whose running aggregates wait to be pushed")
WATERMARK = Gauge("graft_stream_watermark_seconds", "Event time reached by the slowest partition, since 1970")

_log = logging.getLogger(__name__)
_SECONDS = 5.0


@dataclass
class Work:
    """What was done between two commits."""

    taken: Counts[str] = field(default_factory=Counts)
    examples: int = 0
    drawn: int = 0
    left_out: int = 0
    duplicates: int = 0
    dead_letters: list[DeadLetter] = field(default_factory=list)

    def add(self, effects: Effects) -> None:
        """Count one step of one partition."""
        self.taken += effects.taken
        self.examples += len(effects.examples)
        self.drawn += sum(example.sampled is not None for example in effects.examples)
        self.left_out += effects.left_out
        self.duplicates += effects.duplicates
        self.dead_letters += effects.dead_letters


class Report:
    """Counts of one worker; a commit adds to them, so that nothing is counted twice."""

    def __init__(self) -> None:
        self._done: Counts[str] = Counts()
        self._at = time.monotonic()

    def committed(self, work: Work, impressions_topic: str) -> None:
        """Add work that was committed."""
        for topic, count in work.taken.items():
            RECORDS.labels(topic).inc(count)
        EXAMPLES.inc(work.examples)
        DRAWN.inc(work.drawn)
        LEFT_OUT.inc(work.left_out)
        DUPLICATES.labels(impressions_topic).inc(work.duplicates)
        for (topic, code), count in Counts((d.message.topic, d.code) for d in work.dead_letters).items():
            DEAD_LETTERS.labels(topic, code).inc(count)
        self._done.update(
            records=work.taken.total(),
            examples=work.examples,
            drawn=work.drawn,
            left_out=work.left_out,
            dead_letters=len(work.dead_letters),
            duplicates=work.duplicates,
        )

    def tell(self, partitions: Collection[Partition], ends: Mapping[TopicPartition, int]) -> None:
        """Set the gauges and write the log line, when it is time again."""
        if time.monotonic() < self._at + _SECONDS:
            return
        self._at = time.monotonic()
        lag = _lag(partitions, ends)
        for topic, records in lag.items():
            LAG.labels(topic).set(records)
        pending = sum(len(p.join) for p in partitions)
        PENDING.set(pending)
        PARTITIONS.set(len(partitions))
        UNPUSHED.set(sum(len(p.aggregates.waiting) for p in partitions))
        reached = [p.watermark.value_ms for p in partitions if p.watermark.value_ms is not None]
        if reached:
            WATERMARK.set(min(reached) / 1000)
        _log.info(
            "records=%d examples=%d drawn=%d left_out=%d dead_letters=%d duplicates=%d lag=%d pending=%d partitions=%d",
            *(self._done[name] for name in ("records", "examples", "drawn", "left_out", "dead_letters", "duplicates")),
            sum(lag.values()),
            pending,
            len(partitions),
        )


def _lag(partitions: Collection[Partition], ends: Mapping[TopicPartition, int]) -> Counts[str]:
    lag: Counts[str] = Counts()
    for partition in partitions:
        for topic in partition.inputs:
            end = ends.get(TopicPartition(topic, partition.number), 0)
            lag[topic] += max(0, end - partition.positions.get(topic, end))
    return lag
