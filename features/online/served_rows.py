"""Sampled rows as serving saw them: they wait in Redis until the example of the same impression comes.

::

    key    graft:served:{feast project}:{impression id}
    value  a JSON object: what a `ServedRow` has, the arrays as base64 of their little-endian bytes

Shapes: D dense columns, C categorical columns.
"""

import json
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NamedTuple, cast

import hiredis
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from features.spec import FeatureSpec
from runtime.redis import connect, reaching


class ServedRow(NamedTuple):
    """One item of one reply: the vector that was scored, by which version, and when."""

    request_id: str | None
    """The request's X-Request-ID."""
    version: str
    served_at_ms: int
    spec_id: str
    dense_D: NDArray[np.float32]
    categorical_C: NDArray[np.uint64]
    begins_ms: Mapping[str, int]
    """Feast view -> the event time of the row that was stored of it; a view without a row is absent."""


_Ms = Annotated[int, Field(gt=-(2**53), lt=2**53)]


class _Stored(BaseModel):
    """A served row as it stands in Redis."""

    model_config = ConfigDict(extra="forbid", strict=True)

    request_id: str | None
    version: str
    served_at_ms: _Ms
    spec_id: str
    dense_D: str
    categorical_C: str
    begins_ms: dict[str, _Ms]


def set_command(project: str, impression_id: str, row: ServedRow, ttl_seconds: int) -> bytes:
    """Redis' SET of the row, as its wire protocol has it."""
    key, value = _key(project, impression_id), _packed(row)
    command = hiredis.pack_command(cast("Any", ("SET", key, value, "EX", str(ttl_seconds))))
    return cast("bytes", command)


class ServedRowReader:
    """Reads served rows. ServiceUnavailableError when Redis does not answer."""

    def __init__(self, redis_url: str, spec: FeatureSpec) -> None:
        self._url, self._spec = redis_url, spec
        self._client = connect(redis_url)

    def read(self, impression_ids: Sequence[str]) -> list[ServedRow | None]:
        """The rows that served these impressions; None where none was sampled, or was of another feature spec."""
        if not impression_ids:
            return []
        with reaching(self._url):
            values: Any = self._client.mget([_key(self._spec.feast_project, one) for one in impression_ids])
        return [None if value is None else self._usable(value) for value in values]

    def close(self) -> None:
        """Let go of the connection."""
        self._client.close()

    def _usable(self, value: bytes) -> ServedRow | None:
        row = _unpacked(value)
        shape = (len(self._spec.dense_names), len(self._spec.categorical))
        fits = row and row.spec_id == self._spec.spec_id and (row.dense_D.size, row.categorical_C.size) == shape
        return row if fits else None


def _key(project: str, impression_id: str) -> bytes:
    return f"graft:served:{project}:{impression_id}".encode("utf-8", "surrogatepass")


def _packed(row: ServedRow) -> bytes:
    arrays = {
        "dense_D": b64encode(row.dense_D.astype("<f4").tobytes()).decode(),
        "categorical_C": b64encode(row.categorical_C.astype("<u8").tobytes()).decode(),
    }
    return json.dumps(row._asdict() | arrays).encode()


def _unpacked(value: bytes) -> ServedRow | None:
    """None for bytes that `_packed` did not write."""
    try:
        told = _Stored.model_validate_json(value)
        dense_D, categorical_C = (b64decode(array, validate=True) for array in (told.dense_D, told.categorical_C))
        arrays = {"dense_D": np.frombuffer(dense_D, "<f4"), "categorical_C": np.frombuffer(categorical_C, "<u8")}
    except ValueError:  # ValidationError is one
        return None
    return ServedRow(**told.model_dump() | arrays)
