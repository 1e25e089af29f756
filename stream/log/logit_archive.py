"""The logits of the example log: the archive process writes the topic `used-logits` beside the examples.

It waits for nothing: an example may be there before its logits, and these before it. The log is the only state here,
too: each partition's files follow each other, each whole and at once, and the next process goes on at their end.
"""

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from prometheus_client import Counter

from runtime.folder import remove_partial_files
from stream.config import Topics
from stream.kafka.topics import topic_id
from stream.log.example_log import check_topic, note_topic
from stream.log.logit_file import FOLDER, list_logit_files, write_logits
from stream.log.used_logits import UsedLogitsReader, UsedRecord
from stream.positions import Positions

LOGITS = Counter("graft_archive_logits", "Examples whose used logits, or that they had none, are in the example log")
OTHERS = Counter(
    "graft_archive_other_logits", "Records of used logits passed over: they are of a topic made anew since"
)

_log = logging.getLogger(__name__)


class LogitArchive:
    """Collects records and writes them as files; `offsets` has each partition's next offset to be written.

    `examples_id`: Kafka's id of the topic whose examples the log has. Records for a topic with another id are no part
    of the log.
    """

    def __init__(self, folder: Path, offsets: Mapping[int, int], examples_id: str | None) -> None:
        self.offsets = dict(offsets)
        self._folder = folder
        self._examples_id = examples_id
        self._added = Positions(lambda partition: f"used logits for {folder}, partition {partition}", offsets)
        self._records: dict[int, list[UsedRecord]] = defaultdict(list)

    def __len__(self) -> int:
        """How many examples wait."""
        return sum(len(record.used.offsets) for records in self._records.values() for record in records)

    def add(self, records: Sequence[UsedRecord]) -> None:
        """Take records; each partition's in their order, else OffsetError."""
        for record in records:
            self._added.take(record.partition, record.offset)
            if self._is_of_log(record):
                self._records[record.partition].append(record)
            else:
                OTHERS.inc()

    def flush(self) -> None:
        """Write a file per partition; the offsets follow file by file."""
        count = len(self)
        for partition, records in self._records.items():
            if file := write_logits(self._folder, self.offsets.get(partition, 0), records):
                self.offsets[partition] = file.last + 1
        self._records.clear()
        if count:
            LOGITS.inc(count)
            _log.info("archived logits of examples=%d offsets=%s", count, self.offsets)

    def _is_of_log(self, record: UsedRecord) -> bool:
        """Whether it is for the log's examples; where one of the two ids is not known, it is taken for that.

        Each row has its impression's mark, so a reader passes over what is not.
        """
        return None in (record.used.topic_id, self._examples_id) or record.used.topic_id == self._examples_id


def open_used_logits(folder: Path, kafka_servers: str, topics: Topics) -> UsedLogitsReader:
    """A reader that goes on where the log's logits end. DataLossError when the topic was made anew since."""
    remove_partial_files(folder, FOLDER)
    its_id = topic_id(kafka_servers, topics.used_logits)
    check_topic(folder / FOLDER, its_id)
    offsets = {file.partition: file.last + 1 for file in list_logit_files(folder)}
    reader = UsedLogitsReader(kafka_servers, topics, offsets)
    note_topic(folder / FOLDER, its_id)
    return reader
