"""The id of the topic that a folder of an example log is written from: its offsets say nothing of another topic."""

from pathlib import Path

from runtime.errors import DataLossError
from runtime.folder import replacing

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
