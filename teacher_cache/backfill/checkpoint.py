"""How far a backfill has come, beside the logits that it has put: what removes these removes this too.

key    graft:backfills:{project}:{generation}:{name}    JSON: bounds, the next offset per partition, and numbers
"""

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from runtime.redis import connect, reaching
from teacher_cache.backfill.histories import Bounds, Offsets


class _Stored(BaseModel):
    model_config = ConfigDict(extra="forbid")

    starts: dict[int, int]
    ends: dict[int, int]
    position: dict[int, int]
    numbers: dict[str, int | float] = {}


class Saved(NamedTuple):
    """All before `position` is put; `numbers` are the saver's own."""

    bounds: Bounds
    position: Offsets
    numbers: Mapping[str, float]


class Checkpoint:
    """The progress of the backfill `name` of one generation; kept for `ttl_seconds` after the last `save`.

    Every method raises ServiceUnavailableError when Redis does not answer.
    """

    def __init__(self, redis_url: str, generation: str, name: str, ttl_seconds: int) -> None:
        self._url = redis_url
        self._client = connect(redis_url)
        self._key = f"graft:backfills:{generation}:{name}"
        self._ttl_seconds = ttl_seconds

    def load(self) -> Saved | None:
        """What the last `save` was given; None where there is none that can be read."""
        with reaching(self._url):
            found = self._client.get(self._key)
        try:
            saved = _Stored.model_validate_json(found) if isinstance(found, bytes) else None
        except ValidationError:
            return None
        return None if saved is None else Saved(Bounds(saved.starts, saved.ends), saved.position, saved.numbers)

    def save(self, bounds: Bounds, position: Offsets, numbers: Mapping[str, float] = MappingProxyType({})) -> None:
        """Keep these, see `Saved`."""
        value = json.dumps({**bounds._asdict(), "position": dict(position), "numbers": dict(numbers)})
        with reaching(self._url):
            self._client.set(self._key, value, ex=self._ttl_seconds)

    def remove(self) -> None:
        """The backfill is done."""
        with reaching(self._url):
            self._client.unlink(self._key)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()
