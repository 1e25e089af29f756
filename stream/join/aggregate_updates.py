"""Updates of running aggregates: what a closed example adds to one entity, sent to the partition that counts it.

Impressions are partitioned by impression id, so the examples of an entity close in several partitions. One of them
counts the entity, the *entity's partition*: a hash of its kind and id says which. A record of the topic holds what one
transaction adds to the entities of one partition, so that a busy stream writes few records.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple
from zlib import crc32

from pydantic import TypeAdapter, ValidationError

from features.spec import Entity, EntityId
from runtime.errors import InvalidInputError
from stream.events import Example
from stream.messages import Message

_MOST = 1_000  # updates of a record: with the longest ids it stays far below the topic's 4 MB


class AggregateUpdate(NamedTuple):
    """What one example adds to one entity: itself, and the labels that it has."""

    entity: Entity
    entity_id: EntityId
    labels: dict[str, float]
    event_time_ms: int


_UPDATES = TypeAdapter(list[AggregateUpdate])


def updates_of(example: Example, entities: Iterable[Entity]) -> list[AggregateUpdate]:
    """What an example adds to its user and its item, as far as these are among `entities`."""
    labels = {task: label for task, label in example.labels.items() if label is not None}
    ids: dict[Entity, EntityId] = {"user": example.user_id, "item": example.item_id}
    return [AggregateUpdate(entity, ids[entity], labels, example.event_time_ms) for entity in entities]


def entity_key(entity: Entity, entity_id: EntityId) -> str:
    """Names an entity: the number 1 and the text "1" are two."""
    return f"{entity}:{json.dumps(entity_id)}"


def entity_partition(entity: Entity, entity_id: EntityId, partitions: int) -> int:
    """The entity's partition, the same in every process."""
    return crc32(entity_key(entity, entity_id).encode()) % partitions


def packed(updates: Iterable[AggregateUpdate], partitions: int) -> Iterator[tuple[int, bytes]]:
    """The records that hold these updates: the partition and the value of each. An entity's keep their order."""
    by_partition: dict[int, list[AggregateUpdate]] = defaultdict(list)
    for update in updates:
        by_partition[entity_partition(update.entity, update.entity_id, partitions)].append(update)
    for partition, of_it in sorted(by_partition.items()):
        for start in range(0, len(of_it), _MOST):
            yield partition, _UPDATES.dump_json(of_it[start : start + _MOST])


def unpacked(message: Message) -> Sequence[AggregateUpdate]:
    """The updates of a record; InvalidInputError when it is none that graft wrote."""
    try:
        return _UPDATES.validate_json(message.value or b"")
    except ValidationError as error:
        raise InvalidInputError(
            f"{message.topic}-{message.partition}: offset {message.offset} holds no updates of aggregates "
            f"({error.error_count()} faults, such as {error.errors()[0]['msg']}); only 'graft stream run' may write "
            "there: start again with a new stream.topic_prefix"
        ) from error
