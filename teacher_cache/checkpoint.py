"""How far a backfill has come, beside the logits that it has put: what removes these removes this too.

key    graft:backfills:{project}:{generation}:{name}    JSON: bounds, and the next offset per partition
"""

import json

from pydantic import BaseModel, ConfigDict, ValidationError

from runtime.redis import connect, reaching
from teacher_cache.histories import Bounds, Offsets


class _Saved(BaseModel):
    model_config = ConfigDict(extra="forbid")

    starts: dict[int, int]
    ends: dict[int, int]
    position: dict[int, int]


class Checkpoint:
    """The progress of the backfill `name` of one generation; kept for `ttl_seconds` after the last `save`.

    Every method raises ServiceUnavailableError when Redis does not answer.
    """

    def __init__(self, redis_url: str, generation: str, name: str, ttl_seconds: int) -> None:
        self._url = redis_url
        self._client = connect(redis_url)
        self._key = f"graft:backfills:{generation}:{name}"
        self._ttl_seconds = ttl_seconds

    def load(self) -> tuple[Bounds, Offsets] | None:
        """The bounds and the position of the last `save`; None where there is none that can be read."""
        with reaching(self._url):
            found = self._client.get(self._key)
        try:
            saved = _Saved.model_validate_json(found) if isinstance(found, bytes) else None
        except ValidationError:
            return None
        return None if saved is None else (Bounds(saved.starts, saved.ends), saved.position)

    def save(self, bounds: Bounds, position: Offsets) -> None:
        """All before `position` is put."""
        value = json.dumps({**bounds._asdict(), "position": dict(position)})
        with reaching(self._url):
            self._client.set(self._key, value, ex=self._ttl_seconds)

    def remove(self) -> None:
        """The backfill is done."""
        with reaching(self._url):
            self._client.unlink(self._key)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()
