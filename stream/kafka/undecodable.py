"""Records that cannot be decoded: a broken one ends every reader with one line, in place of a loop without end.

kafka-python 3.0.12 raises whatever its decoder met, without the place. Its next poll takes from the ended decoder for
ever (Fetcher.fetched_records), or tries the same bytes again.
"""

from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any, NamedTuple, TypeVar

from kafka.consumer.fetcher import Fetcher
from kafka.errors import KafkaError
from pydantic import BaseModel, ValidationError

from runtime.errors import GraftError

Record = TypeVar("Record", bound=BaseModel)


class Undecodable(NamedTuple):
    """Which records cannot be decoded, and why. What follows `last` may be sound."""

    topic: str
    partition: int
    first: int
    last: int
    fault: str

    def __str__(self) -> str:
        offsets = f"offset {self.first}" if self.first == self.last else f"offsets {self.first} to {self.last}"
        return f"{self.topic}-{self.partition}: {offsets} cannot be decoded ({self.fault})"


class UndecodableError(GraftError):
    """What a consumer's poll raises in place of the decoder's error, again and again until it is moved elsewhere."""

    def __init__(
        self, records: Undecodable, advice: str = "restore the partition from another replica or from a backup"
    ) -> None:
        self.records = records
        self.place = {"topic": records.topic, "partition": records.partition, "offset": records.first}
        super().__init__(f"{records}; {advice}")


def decoded(record: Any, model: type[Record]) -> Record:
    """A record of kafka-python as the `model` that graft wrote; UndecodableError where its value is none."""
    try:
        return model.model_validate_json(record.value)
    except ValidationError as error:
        first = error.errors()[0]
        fault = f"not a {model.__name__}: {'.'.join(map(str, first['loc'])) or 'value'}: {first['msg']}"
        raise UndecodableError(
            Undecodable(record.topic, record.partition, record.offset, record.offset, fault)
        ) from error


def name_undecodable_records() -> None:
    """Let every consumer of this process say what it cannot decode; called once, when this room's door is opened."""
    parts = Fetcher.PartitionRecords
    parts._unpack_records = _named(parts._unpack_records)  # noqa: SLF001 - the one place that knows batch and offset
    Fetcher._parse_fetched_data = _parsed(Fetcher._parse_fetched_data)  # noqa: SLF001


def _named(unpack: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
    @wraps(unpack)
    def named(part: Any, at: Any, records: Any, *more: Any) -> Iterator[Any]:
        batches = _Batches(records)
        return _Records(part, at, batches, unpack(part, at, batches, *more))

    return named


def _parsed(parse: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(parse)
    def parsed(fetcher: Any, fetch: Any) -> Any:
        try:
            return parse(fetcher, fetch)
        except KafkaError as error:
            if type(error) is not KafkaError:  # the others say what the broker answered
                raise
            at = fetch.topic_partition  # a batch whose length is wrong
            raise UndecodableError(
                Undecodable(at.topic, at.partition, fetch.fetched_offset, fetch.fetched_offset, str(error))
            ) from error

    return parsed


class _Batches:
    """The batches of one fetch; `last` is the one that was given last."""

    def __init__(self, records: Any) -> None:
        self._records = records
        self.last: Any = None

    def next_batch(self) -> Any:
        self.last = None
        self.last = self._records.next_batch()
        return self.last


class _Records(Iterator[Any]):
    """The records of one fetch of a partition. Where the decoder fails, every further step fails in the same way."""

    def __init__(self, part: Any, at: Any, batches: _Batches, records: Iterator[Any]) -> None:
        self._part, self._at, self._batches, self._records = part, at, batches, records
        self._error: UndecodableError | None = None

    def __next__(self) -> Any:
        if self._error is not None:
            raise self._error
        try:
            return next(self._records)
        except StopIteration:
            raise
        except Exception as error:  # whatever a decoder of foreign bytes raises
            self._error = UndecodableError(self._failed(error))
            raise self._error from error

    def _failed(self, error: Exception) -> Undecodable:
        first = int(max(self._part.fetch_offset, self._part.next_fetch_offset))
        last = max(first, _last_offset(self._batches.last, first))
        return Undecodable(self._at.topic, self._at.partition, first, last, f"{type(error).__name__}: {error}")


def _last_offset(batch: Any, otherwise: int) -> int:
    """The batch's last offset where its header can be believed: in our topics, a batch has a record per offset."""
    try:
        is_whole = batch.records_count == batch.last_offset_delta + 1
    except AttributeError:  # no batch, or one of an old format
        return otherwise
    return int(batch.last_offset) if is_whole else otherwise
