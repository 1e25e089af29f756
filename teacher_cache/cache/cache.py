"""Where teacher logits wait in Redis: a hash per user, a field per item, see docs/decisions/003-teacher-cache.md.

Where the domain map feeds context features to the teacher, there is a hash per user and context: the same item has
another logit at another hour. See teacher_cache/domain/context_key.py.

    key    graft:logits:{project}:{generation}:{user id}
    key    graft:logits:{project}:{generation}:{user id}:{context's digest}    where the teacher sees a context
    field  {item id}
    value  scored_at, seconds since 1970, uint32 | T logits, float32; little-endian

    key    graft:teachers:{project}:{generation}    hash of counts
    field  put:{writer}                             rows put by "run", "backfill"
    field  hits, misses                             examples that the learner has learnt with and without a logit

Ids are their text: 7 and "7" are one id, as in the feature spec's hashes, so an id's type in JSON does not matter.
Shapes: B rows, T teacher tasks.
"""

import logging
import struct
import time
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from prometheus_client import Counter

from features.spec import Value
from runtime.compute import batched
from runtime.redis import connect, exchange, pack, part, reaching, replies_of
from stream.events import EntityId
from stream.tasks import LARGEST_VALUE
from teacher_cache.domain.context_key import NO_CONTEXT, ContextKey

UNUSABLE_LOGITS = Counter(
    "graft_teacher_unusable_logits_total",
    "Rows found in Redis whose logits are not finite or of a size above 1e9; read as misses",
    ["cache"],
)

_log = logging.getLogger(__name__)

_CHUNK_ENTRIES = 2000  # commands of one round trip: about 100 KB on the wire
_FIELD_AND_VALUE = b"$%d\r\n%b\r\n$%d\r\n%b\r\n"  # as `part` of each: a row is put for every 20 us of a fast teacher


class Row(Protocol):
    """What the key of a row's logits is made of; a teacher request and an example are rows."""

    @property
    def user_id(self) -> EntityId:
        """The user's id."""
        ...

    @property
    def item_id(self) -> EntityId:
        """The item's id."""
        ...

    @property
    def features(self) -> Sequence[Value]:
        """The features in the spec's order."""
        ...


class LogitKey(NamedTuple):
    """Where a row's logits are kept; `LogitCache.keys_of` makes it. Rows with equal keys share their logits."""

    hash_key: str
    field: str


class CachedLogits(NamedTuple):
    """What the cache knows of B rows: NaN for misses, and the logits' age (NaN for misses)."""

    logit_BT: NDArray[np.float32]
    age_seconds_B: NDArray[np.float64]


class LogitCache:
    """The logits of one generation (`Generation.key`); another one sees none of them.

    `context`: tells apart the contexts that the generation's teacher sees. `ttl_seconds`: an older logit is a miss.
    Redis drops a hash that long after its last `put`. `writer` names in the counts who puts. Every method that reads or
    writes raises ServiceUnavailableError when Redis does not answer.
    """

    def __init__(
        self,
        redis_url: str,
        generation: str,
        task_names: Sequence[str],
        ttl_seconds: int,
        context: ContextKey = NO_CONTEXT,
        writer: str = "run",
    ) -> None:
        self.generation = generation
        self._url = redis_url
        self._client = connect(redis_url)
        self._prefix = f"graft:logits:{generation}:"
        self._counts = f"graft:teachers:{generation}"
        self._tasks = len(task_names)
        self._ttl_seconds = ttl_seconds
        self._context = context
        self._writer = writer

    def keys_of(self, rows: Iterable[Row]) -> list[LogitKey]:
        """Where the logits of B rows are kept."""
        told = [(row.user_id, row.item_id, row.features) for row in rows]
        return self.keys(*zip(*told, strict=True)) if told else []

    def keys(
        self, user_ids: Sequence[EntityId], item_ids: Sequence[EntityId], features: Sequence[Sequence[Value]]
    ) -> list[LogitKey]:
        """As `keys_of`, for rows as columns."""
        contexts = self._context.of_each(features)
        hash_keys = [
            f"{self._prefix}{user_id}:{context}" if context else f"{self._prefix}{user_id}"
            for user_id, context in zip(user_ids, contexts, strict=True)
        ]
        return list(map(LogitKey, hash_keys, map(str, item_ids)))

    def put(self, keys: Sequence[LogitKey], logit_BT: NDArray[np.float32], scored_at_ms: int) -> int:
        """Keep finite logits, and their hashes for `ttl_seconds` from now. Of equal keys the last row holds.

        How many of the rows, where no two have one key, Redis had already, however old. Where a hash's key is of
        another type, which graft never writes, its rows are not kept: they are misses.
        """
        values = encode(logit_BT, scored_at_ms)
        return sum(map(self._put_chunk, batched(zip(keys, values, strict=True), _CHUNK_ENTRIES)))

    def get(self, keys: Sequence[LogitKey]) -> CachedLogits:
        """The logits of B keys, in their order. A value that is not what `put` may write is a miss."""
        values: list[bytes | None] = []
        for chunk in batched(keys, _CHUNK_ENTRIES):
            values += self._get_chunk(chunk)
        return decode(values, self._tasks, time.time(), self._ttl_seconds)

    def count_reads(self, hits: int, misses: int) -> None:
        """Add to what the learner has learnt with and without a logit of this generation."""
        pipeline = self._client.pipeline(transaction=False)
        pipeline.hincrby(self._counts, "hits", hits)
        pipeline.hincrby(self._counts, "misses", misses)
        with reaching(self._url):
            replies_of(pipeline)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _put_chunk(self, chunk: Sequence[tuple[LogitKey, bytes]]) -> int:
        by_key: dict[str, list[bytes]] = {}
        for (hash_key, field_text), value in chunk:
            field = field_text.encode()
            by_key.setdefault(hash_key, []).append(_FIELD_AND_VALUE % (len(field), field, len(value), value))
        seconds, commands = part(str(self._ttl_seconds)), []
        for hash_key, entries in by_key.items():
            key = part(hash_key)
            commands.append(b"*%d\r\n$4\r\nHSET\r\n%b%b" % (2 + 2 * len(entries), key, b"".join(entries)))
            commands.append(b"*3\r\n$6\r\nEXPIRE\r\n%b%b" % (key, seconds))
        commands.append(pack("HINCRBY", self._counts, f"put:{self._writer}", str(len(chunk))))
        with reaching(self._url):
            replies: list[int | None] = exchange(self._client, commands)[:-1:2]
        refused = [key for key, reply in zip(by_key, replies, strict=True) if reply is None]
        rows = sum(len(by_key[key]) for key in refused)
        if refused:
            _log.warning("%d rows are not kept, such as those of %s, which is no hash: remove it", rows, refused[0])
        return len(chunk) - rows - sum(new for new in replies if new is not None)

    def _get_chunk(self, chunk: Sequence[LogitKey]) -> list[bytes | None]:
        rows_by_key: dict[str, list[int]] = {}
        for row, (hash_key, _) in enumerate(chunk):
            rows_by_key.setdefault(hash_key, []).append(row)
        commands = [pack("HMGET", key, *[chunk[row].field for row in rows]) for key, rows in rows_by_key.items()]
        with reaching(self._url):
            replies = exchange(self._client, commands)
        values: list[bytes | None] = [None] * len(chunk)
        for rows, reply in zip(rows_by_key.values(), replies, strict=True):
            for row, value in zip(rows, reply or [None] * len(rows), strict=True):
                values[row] = value
        return values


def encode(logit_BT: NDArray[np.float32], scored_at_ms: int) -> list[bytes]:
    """B packed values. ValueError for logits that are not finite: a NaN row means a miss."""
    if not np.isfinite(logit_BT).all():
        raise ValueError("logits must be finite; a row that has none is left out")
    head = struct.pack("<I", scored_at_ms // 1000)
    logits, size = np.ascontiguousarray(logit_BT, "<f4").tobytes(), 4 * logit_BT.shape[1]
    return [head + logits[start : start + size] for start in range(0, len(logits), size)]


def decode(values: Sequence[bytes | None], tasks: int, now_seconds: float, ttl_seconds: float) -> CachedLogits:
    """The inverse of `encode` for B values of T = `tasks` logits.

    NaN where there is none of that length and age, and where one of the T is not `usable`, which is counted.
    """
    entry = np.dtype([("scored_at", "<u4"), ("logit_T", "<f4", (tasks,))])
    logit_BT = np.full((len(values), tasks), np.nan, np.float32)
    age_seconds_B = np.full(len(values), np.nan)
    rows = [row for row, value in enumerate(values) if value is not None and len(value) == entry.itemsize]
    found = np.frombuffer(b"".join(values[row] or b"" for row in rows), entry)
    age_seconds = np.maximum(0.0, now_seconds - found["scored_at"].astype(np.float64))
    usable_N = usable(found["logit_T"])
    UNUSABLE_LOGITS.labels("logits").inc(len(found) - int(usable_N.sum()))
    taken = usable_N & (age_seconds <= ttl_seconds)
    kept = np.asarray(rows, np.intp)[taken]
    logit_BT[kept] = found["logit_T"][taken]
    age_seconds_B[kept] = age_seconds[taken]
    return CachedLogits(logit_BT, age_seconds_B)


def usable(logit_NT: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Per row whether all its logits are finite and of a size that a teacher may have: up to `LARGEST_VALUE`."""
    return np.asarray((np.abs(logit_NT) <= LARGEST_VALUE).all(axis=1), np.bool_)  # a NaN is not below anything


def usable_or_nan(logits: Sequence[float] | None, tasks: int) -> NDArray[np.float32]:
    """The logits [T] that an example log has of one example; NaN for a miss and for what is not `usable`."""
    if logits is not None and len(logits) == tasks and usable(np.array([logits], np.float64))[0]:
        return np.array(logits, np.float32)
    return np.full(tasks, np.nan, np.float32)
