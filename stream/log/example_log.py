"""The example log: the examples topic as Parquet files by day, for as long as one keeps them.

    LOG/day=2026-11-24/p0-0-999.parquet    partition 0, offsets 0 to 999
    LOG/_topic_id                          Kafka's id of the topic, where the broker tells one

Each partition's files follow each other without gap or overlap, so the file names alone say where the log ends.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby, pairwise
from pathlib import Path

from runtime.errors import DataLossError, InvalidInputError
from runtime.folder import replacing
from stream.config import Topics
from stream.kafka.topics import topic_id
from stream.log.example_columns import Wanted, decoded, merged, timed_batches
from stream.log.example_file import ExampleFile, list_files, read
from stream.log.examples import ONE_RANK, ExampleReader, ExampleRecord, Ranks
from stream.log.request_columns import RequestColumns
from stream.positions import Merge

_FILE = "_topic_id"  # tools that read a folder of Parquet files pass over names with _


def check_topic(folder: Path, topic_id: str | None) -> None:
    """DataLossError where the folder is of a topic with another id.

    One without an id, as from earlier versions, and a broker that tells none, fit any.
    """
    path = folder / _FILE
    if not topic_id or not path.is_file() or (logged := path.read_text().strip()) == topic_id:
        return
    raise DataLossError(
        f"{folder} is the log of a topic with the id {logged}, but the topic of that name now has {topic_id}: "
        "it was deleted and made anew; archive the new one into an empty folder: 'graft stream archive NEW_LOG'"
    )


def note_topic(folder: Path, topic_id: str | None) -> None:
    """Write down which topic this folder is of, if that is known; only for its one writer."""
    if topic_id:
        with replacing(folder / _FILE) as file:
            file.write(topic_id.encode() + b"\n")


_log = logging.getLogger(__name__)

_ADVICE = (
    "if 'graft stream archive' writes this log, start again: it may have written them since; else begin anew without "
    "--from: set GRAFT_VERSIONS to a new folder, and a new student begins with the oldest example that is left"
)


class ExampleLog:
    """Reads a log that `graft stream archive` writes, also while it writes.

    With a `spec_id` an example of another feature spec is an error. Errors name the file and its offsets:
    DataLossError for a gap between files, InvalidInputError for an overlap or a damaged file.
    """

    def __init__(self, folder: Path, spec_id: str | None = None) -> None:
        self.folder = folder
        self._spec_id = spec_id

    def offsets_end(self) -> dict[int, int]:
        """Per partition the offset after its last example; a partition without any is absent."""
        return {partition: files[-1].last + 1 for partition, files in self._files().items()}

    def read(self, offsets: Mapping[int, int]) -> Iterator[list[ExampleRecord]]:
        """All records from `offsets` on (per partition the next to read; the log's first where absent).

        They come in the order of an ExampleReader that reads the same records, a few thousand at a time.
        """
        history = self.partitions(offsets)
        merge: Merge[int, ExampleRecord] = Merge(history)
        ended: set[int] = set()
        while len(ended) < len(history):
            for partition in history.keys() - ended:
                if not merge.buffered(partition) and not _add_next(merge, history[partition]):
                    ended.add(partition)
            if records := list(merge.take(ended)):
                yield records

    def read_requests(self, offsets: Mapping[int, int], wanted: Wanted) -> Iterator[RequestColumns]:
        """Of `read` the wanted records as teacher requests, in the same order, some hundred at a time.

        A partition's records leave when its latest event time so far is the least of all partitions: so the order of
        two records does not depend on those between them, and the shares of a log can be read apart.
        """
        sources = [
            timed_batches(files, self._first_wanted(partition, files[0], offsets), wanted)
            for partition, files in self._files().items()
        ]
        for rows in merged(sources):
            yield from decoded(self.folder, rows)

    def partitions(self, offsets: Mapping[int, int]) -> dict[int, "LoggedPartition"]:
        """Each partition's records from `offsets` on, in the order of partitions; those with nothing left are absent.

        DataLossError when an offset lies before the log's first.
        """
        found = {}
        for partition, files in self._files().items():
            offset = self._first_wanted(partition, files[0], offsets)
            if offset <= files[-1].last:
                found[partition] = LoggedPartition(files, offset, self._spec_id)
        return found

    def _first_wanted(self, partition: int, oldest: ExampleFile, offsets: Mapping[int, int]) -> int:
        if partition not in offsets:
            if oldest.first > 0:
                _log.warning(
                    "%s begins after the topic did: partition=%d offset=%d",
                    self.folder,
                    *oldest[:2],
                    extra={"partition": oldest.partition, "offset": oldest.first},
                )
            return oldest.first
        if offsets[partition] < oldest.first:
            raise DataLossError(
                f"{self.folder}: partition {partition} is to be read from offset {offsets[partition]} on, "
                f"but the log's first file is {oldest}; name the log that has them, or leave --from out; where neither "
                "goes on, set GRAFT_VERSIONS to a new folder"
            )
        return offsets[partition]

    def _files(self) -> dict[int, list[ExampleFile]]:
        """The files by partition, each list unbroken.

        Two listings must agree: one alone could miss a file of an early day and see a later one written meanwhile.
        """
        if not self.folder.is_dir():
            raise InvalidInputError(f"{self.folder}: no such folder; 'graft stream archive {self.folder}' makes it")
        files = list_files(self.folder)
        while (again := list_files(self.folder)) != files:
            files = again
        _refuse_broken(files)
        return {partition: list(group) for partition, group in groupby(files, lambda f: f.partition)}


class LoggedPartition(Iterator[list[ExampleRecord]]):
    """The records of one partition from `offset` to before `end`, a few thousand at a time.

    `left`: the offsets not yet given.
    """

    def __init__(self, files: Iterable[ExampleFile], offset: int, spec_id: str | None) -> None:
        wanted = [file for file in files if file.last >= offset]
        self.partition = wanted[0].partition
        self.end = wanted[-1].last + 1
        self.left = self.end - offset
        self._records = (records for file in wanted for records in read(file, offset, spec_id) if records)

    def __next__(self) -> list[ExampleRecord]:
        records = next(self._records)
        self.left = self.end - records[-1].offset - 1
        return records


def log_then_topic(
    log: ExampleLog, kafka_servers: str, topics: Topics, offsets: Mapping[int, int], ranks: Ranks = ONE_RANK
) -> ExampleReader:
    """The examples from `offsets` on: from the log as far as it goes now, then from the topic; each exactly once.

    Their order is that of an ExampleReader that reads them all from the topic. DataLossError when the topic does not
    have the log's end, or was made anew since the log began.
    """
    check_topic(log.folder, topic_id(kafka_servers, topics.examples))
    history = log.partitions(offsets)
    ends = {number: partition.end for number, partition in history.items()}
    try:
        return ExampleReader(kafka_servers, topics, {**offsets, **ends}, history, ranks, _ADVICE)
    except DataLossError as error:
        raise DataLossError(
            f"{log.folder} is learnt up to its end, offset {ends}, but the topic does not go on there: {error}"
        ) from error


def _add_next(merge: Merge[int, ExampleRecord], partition: LoggedPartition) -> bool:
    records = next(partition, [])
    for record in records:
        merge.add(partition.partition, record.example.event_time_ms, record)
    return bool(records)


def _refuse_broken(files: Iterable[ExampleFile]) -> None:
    for before, after in pairwise(files):
        if before.partition != after.partition:
            continue
        if after.first > before.last + 1:
            raise DataLossError(
                f"offsets {before.last + 1} to {after.first - 1} are missing between {before} and {after}"
            )
        if after.first <= before.last:
            raise InvalidInputError(f"{after} overlaps {before}; keep the one that belongs to this log")
