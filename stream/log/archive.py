"""The archive process: writes the examples topic into an example log, from exactly where the log ends.

Beside each example it writes the teacher's logits that the cache has of it then; one without any is written without.

The log is the only state. Each partition's files appear in the order of their offsets, each whole and at once. A kill
at any moment leaves an unbroken log, and the next process continues at its end: nothing is lost or doubled.
"""

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path

from prometheus_client import Counter, Gauge

from runtime.errors import DataLossError
from runtime.folder import claim_folder, remove_partial_files
from runtime.health import HEALTH
from runtime.telemetry import StopSignal
from stream.config import Topics
from stream.events import Example
from stream.kafka import connection
from stream.kafka.topics import topic_id
from stream.log.example_file import DAYS, runs, write
from stream.log.example_log import ExampleLog, check_topic, note_topic
from stream.log.examples import ExampleReader, ExampleRecord
from stream.positions import ArchivedLogits, Positions

LookUp = Callable[[Sequence[Example]], Sequence[ArchivedLogits | None]]
"""What the teacher's cache has of these examples; None where it has nothing. It raises no error of the cache."""

EXAMPLES = Counter("graft_archive_examples", "Examples written to the example log")
LOGITS = Counter("graft_archive_logits", "Examples that are in the example log with their teacher's logits")
LAG = Gauge("graft_archive_lag_records", "Records of the examples topic that are not in the example log yet")

_log = logging.getLogger(__name__)

_ADVICE = "to go on past the gap, archive into an empty folder: 'graft stream archive NEW_LOG'"
_LOOP = "archiving"
_POLL_SECONDS = 0.2  # how soon a quiet process sees a stop or a flush that is due


def run_archive(
    folder: Path,
    kafka_servers: str,
    topics: Topics,
    stop: StopSignal,
    *,
    look_up: "LookUp | None" = None,
    every_examples: int = 20_000,
    every_seconds: float = 30.0,
) -> None:
    """Write files to `folder` every so many examples or seconds; on `stop` write the rest and return.

    `look_up` gives the teacher's logits of the examples that are written; None without a teacher.

    It waits for Kafka, also before it begins: StoppedError when a stop is asked for then. A partition that the log does
    not have yet begins with the oldest example that the topic still has. DataLossError when the topic has lost what
    comes after the log's end, or was made anew since; GraftError when another process writes this log, or its disk
    takes no writes: the next process goes on where the log ends.
    """
    with claim_folder(folder, "another process writes this example log; stop it, or name another folder"):
        remove_partial_files(folder, DAYS)
        its_id = connection.wait_for_kafka(lambda: topic_id(kafka_servers, topics.examples), stop)
        with closing(connection.wait_for_kafka(lambda: _open(folder, kafka_servers, topics, its_id), stop)) as reader:
            _archive_until(stop, reader, Archive(folder, reader.started, look_up), every_examples, every_seconds)


def _archive_until(
    stop: StopSignal, examples: ExampleReader, archive: "Archive", every_examples: int, every_seconds: float
) -> None:
    flushed_at = time.monotonic()
    HEALTH.begin(_LOOP)
    while not stop.is_set():
        archive.add(examples.poll(_POLL_SECONDS))
        if len(archive) >= every_examples or time.monotonic() - flushed_at >= every_seconds:
            archive.flush()
            LAG.set(examples.lag())
            flushed_at = time.monotonic()
        HEALTH.round_ended(_LOOP)
    archive.flush()


class Archive:
    """Collects records and writes them as files; `offsets` has each partition's next offset to be written."""

    def __init__(self, folder: Path, offsets: Mapping[int, int], look_up: LookUp | None = None) -> None:
        self.offsets = dict(offsets)
        self._folder = folder
        self._look_up = look_up
        self._added = Positions(lambda partition: f"examples for {folder}, partition {partition}", offsets)
        self._records: dict[int, list[ExampleRecord]] = defaultdict(list)

    def __len__(self) -> int:
        return sum(map(len, self._records.values()))

    def add(self, records: Sequence[ExampleRecord]) -> None:
        """Take records; each partition's in their order, else OffsetError."""
        for record in records:
            self._added.take(record.partition, record.offset)
            self._records[record.partition].append(record)

    def flush(self) -> None:
        """Write a file per partition and run; the offsets follow file by file."""
        count = len(self)
        for partition, records in self._records.items():
            for run in runs(self._with_logits(records)):
                file = write(self._folder, self.offsets.get(partition, 0), run)
                self.offsets[partition] = file.last + 1
                EXAMPLES.inc(len(run))
        self._records.clear()
        if count:
            _log.info("archived examples=%d offsets=%s", count, self.offsets)

    def _with_logits(self, records: Sequence[ExampleRecord]) -> Sequence[ExampleRecord]:
        if self._look_up is None:
            return records
        logits = self._look_up([record.example for record in records])
        LOGITS.inc(sum(archived is not None for archived in logits))
        return [record._replace(archived=archived) for record, archived in zip(records, logits, strict=True)]


def _open(folder: Path, kafka_servers: str, topics: Topics, its_id: str | None) -> ExampleReader:
    """A reader of the topic that goes on where the log ends; the log notes the topic's id."""
    check_topic(folder, its_id)
    offsets = ExampleLog(folder).offsets_end()
    note_topic(folder, its_id)
    try:
        return ExampleReader(kafka_servers, topics, offsets, if_gone=_ADVICE)
    except DataLossError as error:
        raise DataLossError(
            f"{folder} ends at offsets {dict(offsets)}, but the topic does not go on there: {error.args[0]}"
        ) from error
