"""What the stream process reports while it works, and when it stops since nearly nothing can be used.

Such as after a producer's change of format: it stops before it empties the input into its dead letters. Only messages
that do not pass the validation count: feedback that comes late is a dead letter too, but a pause would not help it.
"""

import logging
import time
from collections import Counter as Counts
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from kafka import TopicPartition
from prometheus_client import Counter, Gauge

from runtime.errors import GraftError
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


UNDECIDED_SECONDS = 5.0  # how long a commit waits for the messages that show what the first ones are
_FEW = 10  # messages of which as many may be bad as will: bad lines come in groups
_ENOUGH = 100  # messages that show what an input is


class MostlyUnusableError(GraftError):
    """Nearly no message of `topic` can be used; nothing was committed of those before `positions`."""

    def __init__(self, topic: str, positions: Mapping[TopicPartition, int], text: str) -> None:
        self.topic = topic
        self.positions = dict(positions)
        super().__init__(text)


class UnusableShare:
    """Judges what is about to be committed, input by input, against `most`: the share that may be unusable.

    `excused` names offsets before which unusable messages do not count: newer ones were seen that can be used.
    """

    def __init__(self, most: float, excused: Mapping[TopicPartition, int]) -> None:
        self._most = most
        self._excused = excused
        self._taken: Counts[str] = Counts()
        self._unusable: Counts[str] = Counts()

    def is_undecided(self, work: Work) -> bool:
        """Whether too few messages were taken to tell, and nearly none of them can be used."""
        unusable = self._count(work)
        return any(_FEW <= n < _ENOUGH and self._is_above(unusable[topic], n) for topic, n in work.taken.items())

    def check(self, work: Work, partitions: Mapping[int, Partition]) -> None:
        """MostlyUnusableError when `work` must not be committed, by itself or with what was committed before it."""
        unusable = self._count(work)
        for topic, bad in unusable.items():
            taken = work.taken[topic]
            for n, of_them in ((taken, bad), (taken + self._taken[topic], bad + self._unusable[topic])):
                if n >= _ENOUGH and self._is_above(of_them, n):
                    positions = {
                        TopicPartition(topic, p.number): p.positions.get(topic, 0) for p in partitions.values()
                    }
                    raise MostlyUnusableError(topic, positions, _text(topic, of_them, n, self._letters(work)))

    def committed(self, work: Work) -> None:
        """Remember the last messages: about `_ENOUGH` of each input."""
        self._taken.update(work.taken)
        self._unusable.update(self._count(work))
        for topic, n in self._taken.items():
            if n > _ENOUGH:
                self._unusable[topic] = self._unusable[topic] * _ENOUGH // n
                self._taken[topic] = _ENOUGH

    def _is_above(self, unusable: int, taken: int) -> bool:
        return unusable > self._most * taken

    def _count(self, work: Work) -> Counts[str]:
        return Counts(letter.message.topic for letter in self._letters(work))

    def _letters(self, work: Work) -> list[DeadLetter]:
        return [
            letter
            for letter in work.dead_letters
            if letter.stage == "validate" and letter.message.offset >= self._excused.get(_place(letter), 0)
        ]


def _place(letter: DeadLetter) -> TopicPartition:
    return TopicPartition(letter.message.topic, letter.message.partition)


def _text(topic: str, unusable: int, taken: int, letters: Sequence[DeadLetter]) -> str:
    newest = next(letter for letter in reversed(letters) if letter.message.topic == topic)
    message = newest.message
    return (
        f"{unusable} of the last {taken} messages of {topic} cannot be used, such as partition {message.partition} "
        f"offset {message.offset}: {newest.text}; they are not put aside. The stream goes on by itself when newer "
        "messages can be used; else mend the producer, or change the project and start the stream again; with "
        "stream.max_unusable_share = 1 it puts them aside"
    )
