"""Records that cannot be decoded: a broken one ends every reader with one line that names its place."""

from typing import Any, NamedTuple, TypeVar

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
