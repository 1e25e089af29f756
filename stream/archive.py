"""The archive process: writes the examples topic into an example log, from exactly where the log ends.

The log is the only state. Each partition's files appear in the order of their offsets, each whole and at once. A kill
at any moment leaves an unbroken log, and the next process continues at its end: nothing is lost or doubled.
"""

import logging
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from prometheus_client import Counter, Gauge

from runtime.errors import DataLossError
from runtime.folder import claim_folder, remove_partial_files
from runtime.health import HEALTH
from runtime.telemetry import StopSignal
from stream import connection
from stream.config import Topics
from stream.example_file import DAYS, runs, write
from stream.example_log import ExampleLog
from stream.examples import ExampleReader, ExampleRecord
from stream.positions import Positions
from stream.topics import topic_id

EXAMPLES = Counter("graft_archive_examples", "Examples written to the example log")
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
    every_examples: int = 20_000,
    every_seconds: float = 30.0,
) -> None:
    """Write files to `folder` every so many examples or seconds; on `stop` write the rest and return.

    It waits for Kafka, also before it begins: StoppedError when a stop is asked for then. A partition that the log does
    not have yet begins with the oldest example that the topic still has. DataLossError when the topic has lost what
    comes after the log's end, or was made anew since; GraftError when another process writes this log, or its disk
    takes no writes: the next process goes on where the log ends.
    """
    with claim_folder(folder, "another process writes this example log; stop it, or name another folder"):
        remove_partial_files(folder, DAYS)
        reader = connection.wait_for_kafka(lambda: _open(folder, kafka_servers, topics), stop)
        archive = Archive(folder, reader.started)
        flushed_at = time.monotonic()
        HEALTH.begin(_LOOP)
        try:
            while not stop.is_set():
                archive.add(reader.poll(_POLL_SECONDS))
                if len(archive) >= every_examples or time.monotonic() - flushed_at >= every_seconds:
                    archive.flush()
                    LAG.set(reader.lag())
                    flushed_at = time.monotonic()
                HEALTH.round_ended(_LOOP)
            archive.flush()
        finally:
            reader.close()


class Archive:
    """Collects records and writes them as files; `offsets` has each partition's next offset to be written."""

    def __init__(self, folder: Path, offsets: Mapping[int, int]) -> None:
        self.offsets = dict(offsets)
        self._folder = folder
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
            for run in runs(records):
                file = write(self._folder, self.offsets.get(partition, 0), run)
                self.offsets[partition] = file.last + 1
                EXAMPLES.inc(len(run))
        self._records.clear()
        if count:
            _log.info("archived examples=%d offsets=%s", count, self.offsets)


def _open(folder: Path, kafka_servers: str, topics: Topics) -> ExampleReader:
    """A reader of the topic that goes on where the log ends; the log notes the topic's id."""
    log, its_id = ExampleLog(folder), topic_id(kafka_servers, topics.examples)
    log.check_topic(its_id)
    offsets = log.offsets_end()
    if its_id:
        log.note_topic(its_id)
    try:
        return ExampleReader(kafka_servers, topics, offsets, if_gone=_ADVICE)
    except DataLossError as error:
        raise DataLossError(
            f"{folder} ends at offsets {dict(offsets)}, but the topic does not go on there: {error.args[0]}"
        ) from error
