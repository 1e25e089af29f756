"""How far a replay has come in its file, kept on the broker: both that and the messages are there, or neither."""

import hashlib
from pathlib import Path

from kafka import KafkaAdminClient, TopicPartition
from kafka.errors import NoError
from kafka.structs import OffsetAndMetadata

from runtime.errors import ConfigurationError, GraftError
from stream.config import Topics
from stream.kafka import connection
from stream.kafka.groups import REPLAY_GROUP, committed_offsets, group_id

_MARK_BYTES = 65_536


class ReplayPosition:
    """The events of one file, from its beginning, that a project's topics have."""

    def __init__(self, kafka_servers: str, admin: KafkaAdminClient, topics: Topics, path: Path) -> None:
        self._kafka_servers = kafka_servers
        self._admin = admin
        self._group = group_id(topics, REPLAY_GROUP)
        self._place = TopicPartition(topics.impressions, 0)
        self._path = path
        self._mark = _mark(path)

    def read(self) -> int:
        """How many are sent; 0 where no replay has begun. ConfigurationError when it was one of another file."""
        with connection.reaching(self._kafka_servers):
            found = committed_offsets(self._admin, self._group).get(self._place)
        if found is None:
            return 0
        if found.metadata != self._mark:
            raise ConfigurationError([_other_file(self._path, found.offset)])
        return int(found.offset)

    def write(self, events: int) -> None:
        """Note that the first `events` are sent; GraftError when Kafka does not take it."""
        noted = OffsetAndMetadata(events, self._mark, -1)
        with connection.reaching(self._kafka_servers):
            (outcome,) = self._admin.alter_group_offsets(self._group, {self._place: noted}).values()
        if outcome is not NoError:
            raise GraftError(f"Kafka does not keep how far the replay is (group {self._group}): {outcome.__name__}")


def events_sent(kafka_servers: str, topics: Topics, path: Path) -> int:
    """How many events of a file replays have sent that can be resumed; ConfigurationError as `ReplayPosition.read`."""
    admin = connection.admin(kafka_servers)
    try:
        return ReplayPosition(kafka_servers, admin, topics, path).read()
    finally:
        admin.close()


def _other_file(path: Path, sent: int) -> str:
    return (
        f"{path}: is another file than the one that was replayed up to event {sent:,}, or has changed since; send "
        "what is new as a file of its own without --resume, or begin anew with 'graft reset'"
    )


def _mark(path: Path) -> str:
    """Tells a file from others and from itself with other content: its size, and a digest of how it begins."""
    with path.open("rb") as file:
        head = file.read(_MARK_BYTES)
    return f"{path.stat().st_size} {hashlib.sha256(head).hexdigest()[:16]}"
