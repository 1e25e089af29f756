"""What lies in a project's teacher cache, by generation, for people: `Inventory` reads it, `CachedKeys` removes it."""

import re
import time
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from runtime.compute import batched
from runtime.redis import connect, literal, reaching, replies_of
from teacher_cache.cache.cache import decode
from teacher_cache.domain.context_key import CONTEXT_DIGITS

AGES_SECONDS = (60, 600, 3_600, 21_600, 86_400, 604_800, 2_592_000)
"""The upper ends of a histogram's bins of ages but the last: a minute, ten, an hour, six, a day, a week, 30 days."""

_SCAN_KEYS = 1_000  # of one round trip
_SAMPLED_HASHES = 1_000
_KINDS = ("logits", "profiles", "backfills", "unshown")  # of keys, each of a generation; the last of earlier releases
_DIGEST = re.compile(rb"([0-9a-f]{16}):")
_CONTEXT = re.compile(rb":([0-9a-f]{%d})$" % CONTEXT_DIGITS)
_ANY_CONTEXT = b":" + b"[0-9a-f]" * CONTEXT_DIGITS  # as a pattern of SCAN


class Contents(NamedTuple):
    """A generation's users, rows, and bytes in Redis as MEMORY USAGE tells them."""

    users: int
    rows: int
    bytes: int


class Found(NamedTuple):
    """One row's logits, in the order of its generation's tasks, and their age.

    `context`: the digest of the row's context; empty in a generation whose teacher sees none.
    """

    digest: str
    context: str
    logits: list[float]
    age_seconds: float


class Inventory:
    """The cache of one project, read key by key; nothing is changed.

    Every method raises ServiceUnavailableError when Redis does not answer.

    `with_context`: the digests of the generations whose keys have a context.
    """

    def __init__(self, redis_url: str, project: str, with_context: Collection[str] = ()) -> None:
        self._url = redis_url
        self._client = connect(redis_url)
        self._prefix = f"graft:logits:{project}:"
        self._project = project
        self._with_context = with_context

    def contents(self) -> dict[str, Contents]:
        """Every generation that has rows, by its digest.

        Remembers a 64-bit hash of each user that is in several contexts, to count it once.
        """
        found: dict[str, Contents] = defaultdict(lambda: Contents(0, 0, 0))
        users: set[int] = set()
        with reaching(self._url):
            for keys in self._keys(literal(self._prefix.encode()) + b"*"):
                pipeline = self._client.pipeline(transaction=False)
                for key in keys:
                    pipeline.hlen(key)  # type: ignore[arg-type] # a key may be bytes
                    pipeline.memory_usage(key)
                replies = replies_of(pipeline)
                for key, rows, size in zip(keys, replies[::2], replies[1::2], strict=True):
                    if match := _DIGEST.match(key, len(self._prefix)):
                        digest = match[1].decode()
                        count, all_rows, all_bytes = found[digest]
                        is_new = digest not in self._with_context or _is_new(_CONTEXT.sub(b"", key), users)
                        found[digest] = Contents(count + is_new, all_rows + (rows or 0), all_bytes + (size or 0))
        return dict(found)

    def ages(self, digest: str, now_seconds: float) -> list[int]:
        """How many rows of up to 1,000 hashes have an age in each bin of `AGES_SECONDS`, the last one is beyond."""
        ages = [
            now_seconds - int.from_bytes(value[:4], "little") for values in self._values(digest) for value in values
        ]
        bins = np.bincount(np.searchsorted(AGES_SECONDS, ages, side="right"), minlength=len(AGES_SECONDS) + 1)
        return [int(count) for count in bins]

    def means(self, digest: str, tasks: int) -> tuple[int, list[float]]:
        """How many rows of up to 1,000 hashes there are, and the mean of each of the T tasks over them."""
        total_T, rows = np.zeros(tasks), 0
        for values in self._values(digest):
            logit_BT = decode(values, tasks, time.time(), np.inf).logit_BT
            found_NT = logit_BT[np.isfinite(logit_BT).all(axis=1)].astype(np.float64)
            total_T, rows = total_T + found_NT.sum(axis=0), rows + len(found_NT)
        return rows, [float(total) / max(1, rows) for total in total_T]

    def counts(self, digest: str) -> dict[str, int]:
        """See teacher_cache/cache/cache.py: rows put by each writer, hits and misses of the learner."""
        with reaching(self._url):
            found: Any = self._client.hgetall(f"graft:teachers:{self._project}:{digest}")
        return {field.decode(): int(value) for field, value in sorted(found.items())}

    def logits(self, user_id: str, item_id: str, digests: Sequence[str]) -> list[Found]:
        """What these generations have of a user and an item, in each context and however old.

        What is no usable logit is left out.
        """
        places = [(digest, key) for digest in digests for key in self._keys_of(digest, user_id)]
        pipeline = self._client.pipeline(transaction=False)
        for _, key in places:
            pipeline.hget(key, item_id.encode("utf-8", "replace"))  # type: ignore[arg-type] # both may be bytes
        with reaching(self._url):
            values = replies_of(pipeline)
        found = []
        for (digest, key), value in zip(places, values, strict=True):
            tasks = max(0, len(value or b"") // 4 - 1)
            logit_BT, age_seconds_B = decode([value], tasks, time.time(), np.inf)
            if tasks and np.isfinite(logit_BT).all():
                logits = [float(logit) for logit in logit_BT[0]]
                found.append(Found(digest, self._context_of(digest, key), logits, float(age_seconds_B[0])))
        return found

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _keys_of(self, digest: str, user_id: str) -> list[bytes]:
        """The keys of a user's hashes: one, or one for each context."""
        key = f"{self._prefix}{digest}:{user_id}".encode("utf-8", "replace")  # no stored id has odd bytes
        if digest not in self._with_context:
            return [key]
        with reaching(self._url):
            return sorted({one for some in self._keys(literal(key) + _ANY_CONTEXT) for one in some})

    def _context_of(self, digest: str, key: bytes) -> str:
        return key[-CONTEXT_DIGITS:].decode() if digest in self._with_context else ""

    def _values(self, digest: str) -> Iterator[list[bytes]]:
        """What up to 1,000 hashes have, some at a time."""
        pattern = literal(f"{self._prefix}{digest}:".encode()) + b"*"
        with reaching(self._url):
            for keys in islice(self._keys(pattern), _SAMPLED_HASHES // _SCAN_KEYS):
                pipeline = self._client.pipeline(transaction=False)
                for key in keys:
                    pipeline.hvals(key)  # type: ignore[arg-type]
                yield [value for reply in replies_of(pipeline) for value in reply or ()]

    def _keys(self, pattern: bytes) -> Iterator[list[bytes]]:
        """The keys that match, some at a time; each may come more than once, as SCAN says."""
        return batched(self._client.scan_iter(match=pattern, count=_SCAN_KEYS), _SCAN_KEYS)


def _is_new(user: bytes, known: set[int]) -> bool:
    """Whether a user was not known; it is then."""
    before = len(known)
    known.add(hash(user))
    return len(known) > before


class CachedKeys:
    """The keys of one generation of a project, or of all; ServiceUnavailableError when Redis does not answer.

    What `GenerationRegistry` has of them is none of these.
    """

    def __init__(self, redis_url: str, project: str, digest: str | None = None) -> None:
        self._url = redis_url
        self._client = connect(redis_url)
        of = project if digest is None else f"{project}:{digest}"
        self._patterns = [literal(f"graft:{kind}:{of}:".encode()) + b"*" for kind in _KINDS]
        counts = literal(f"graft:teachers:{of}".encode())
        self._counts = counts + b":*" if digest is None else counts

    def count(self) -> int:
        """How many keys there are: one a user, three a profile table, ..."""
        with reaching(self._url):
            return sum(map(len, self._keys(self._patterns)))

    def remove(self) -> int:
        """Remove them all, and the counts; how many there were without these."""
        removed = 0
        with reaching(self._url):
            for keys in self._keys(self._patterns):
                self._client.unlink(*keys)
                removed += len(keys)
            for keys in self._keys([self._counts]):
                self._client.unlink(*keys)
        return removed

    def _keys(self, patterns: list[bytes]) -> Iterator[list[bytes]]:
        """The keys, some at a time."""
        for pattern in patterns:
            yield from batched(self._client.scan_iter(match=pattern, count=_SCAN_KEYS), _SCAN_KEYS)
