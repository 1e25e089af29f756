"""Teacher requests of a history as columns: a row of its own for each would cost more than most teachers take.

Shapes: B requests.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, NamedTuple

import mmh3
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from stream.events import EntityId, FeatureValue, TeacherRequest


class Share(NamedTuple):
    """The users whose hash leaves the remainder `number` when it is divided by `of`; the same on every machine."""

    number: int
    of: int

    def has(self, user_ids: pa.Array) -> NDArray[np.bool_]:
        """Per row whether its user is of this share. Ids may be their JSON: 7 and "7" are of the same share."""
        texts = pc.utf8_trim(pc.fill_null(user_ids.cast(pa.string()), ""), '"').dictionary_encode()
        shares = [mmh3.hash(text, signed=False) % self.of for text in texts.dictionary.to_pylist()]
        has: NDArray[np.bool_] = np.array(shares, np.int64)[texts.indices.to_numpy()] == self.number
        return has


_NAMES = tuple(TeacherRequest.model_fields)


class RequestColumns(NamedTuple):
    """B teacher requests, and where each stands in its history; entry b of each column is of request b."""

    partitions: list[int]
    offsets: list[int]
    impression_ids: list[str]
    user_ids: list[EntityId]
    item_ids: list[EntityId]
    event_times_ms: list[int]
    contexts: list[dict[str, int | float | str]]
    spec_ids: list[str]
    features: list[list[FeatureValue]]

    @classmethod
    def of(cls, placed: Iterable[tuple[int, int, TeacherRequest]]) -> "RequestColumns":
        """Of requests with their partitions and offsets."""
        rows = [(partition, offset, *dict(request).values()) for partition, offset, request in placed]
        columns: Iterable[Sequence[Any]] = zip(*rows, strict=True) if rows else ((),) * len(cls._fields)
        return cls(*map(list, columns))

    @property
    def size(self) -> int:
        """B."""
        return len(self.offsets)

    def part(self, start: int, end: int) -> "RequestColumns":
        """From `start` on and before `end`."""
        return RequestColumns._make(column[start:end] for column in self)

    def at(self, places: Sequence[int]) -> "RequestColumns":
        """The requests at these places, in their order."""
        return RequestColumns._make([column[place] for place in places] for column in self)

    def ends(self) -> dict[int, int]:
        """Per partition the offset after its last request; a partition's offsets rise."""
        return {partition: offset + 1 for partition, offset in dict(zip(*self[:2], strict=True)).items()}

    def requests(self) -> list[TeacherRequest]:
        """The requests themselves."""
        return [
            TeacherRequest.of_checked(dict(zip(_NAMES, fields, strict=True))) for fields in zip(*self[2:], strict=True)
        ]


def regrouped(parts: Iterable[RequestColumns], size: int) -> Iterator[RequestColumns]:
    """The same requests in the same order, `size` at a time; the last are as many as are left."""
    waiting: list[RequestColumns] = []
    for part in parts:
        start = 0
        missing = size - sum(one.size for one in waiting)
        while part.size - start >= missing:
            yield _joined([*waiting, part.part(start, start + missing)])
            waiting, start, missing = [], start + missing, size
        if start < part.size:
            waiting.append(part.part(start, part.size))
    if waiting:
        yield _joined(waiting)


def _joined(parts: Sequence[RequestColumns]) -> RequestColumns:
    return RequestColumns._make(list(chain.from_iterable(columns)) for columns in zip(*parts, strict=True))
