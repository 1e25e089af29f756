"""What lies in a project's teacher cache, by generation: for people. It reads keys one by one and changes nothing."""

import re
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from runtime.redis import connect, literal, reaching, replies_of
from teacher_cache.cache import decode

AGES_SECONDS = (60, 600, 3_600, 21_600, 86_400, 604_800, 2_592_000)
"""The upper ends of a histogram's bins of ages but the last: a minute, ten, an hour, six, a day, a week, 30 days."""

_SCAN_KEYS = 1_000  # of one round trip
_SAMPLED_USERS = 1_000
_DIGEST = re.compile(rb"([0-9a-f]{16}):")


class Contents(NamedTuple):
    """A generation's users, rows, and bytes in Redis as MEMORY USAGE tells them."""

    users: int
    rows: int
    bytes: int


class Found(NamedTuple):
    """One row's logits, in the order of its generation's tasks, and their age."""

    digest: str
    logits: list[float]
    age_seconds: float


class Inventory:
    """The cache of one project. Every method raises ServiceUnavailableError when Redis does not answer."""

    def __init__(self, redis_url: str, project: str) -> None:
        self._url = redis_url
        self._client = connect(redis_url)
        self._prefix = f"graft:logits:{project}:"
        self._project = project

    def contents(self) -> dict[str, Contents]:
        """Every generation that has rows, by its digest."""
        found: dict[str, Contents] = defaultdict(lambda: Contents(0, 0, 0))
        with reaching(self._url):
            for keys in self._keys(self._prefix):
                pipeline = self._client.pipeline(transaction=False)
                for key in keys:
                    pipeline.hlen(key)  # type: ignore[arg-type] # a key may be bytes
                    pipeline.memory_usage(key)
                replies = replies_of(pipeline)
                for key, rows, size in zip(keys, replies[::2], replies[1::2], strict=True):
                    if digest := _DIGEST.match(key, len(self._prefix)):
                        users, all_rows, all_bytes = found[digest[1].decode()]
                        found[digest[1].decode()] = Contents(users + 1, all_rows + (rows or 0), all_bytes + (size or 0))
        return dict(found)

    def ages(self, digest: str, now_seconds: float) -> list[int]:
        """How many rows of up to 1,000 users have an age in each bin of `AGES_SECONDS`, the last one is beyond."""
        ages = [
            now_seconds - int.from_bytes(value[:4], "little") for values in self._values(digest) for value in values
        ]
        bins = np.bincount(np.searchsorted(AGES_SECONDS, ages, side="right"), minlength=len(AGES_SECONDS) + 1)
        return [int(count) for count in bins]

    def means(self, digest: str, tasks: int) -> tuple[int, list[float]]:
        """How many rows of up to 1,000 users there are, and the mean of each of the T tasks over them."""
        total_T, rows = np.zeros(tasks), 0
        for values in self._values(digest):
            logit_BT = decode(values, tasks, time.time(), np.inf).logit_BT
            found_NT = logit_BT[np.isfinite(logit_BT).all(axis=1)].astype(np.float64)
            total_T, rows = total_T + found_NT.sum(axis=0), rows + len(found_NT)
        return rows, [float(total) / max(1, rows) for total in total_T]

    def counts(self, digest: str) -> dict[str, int]:
        """See teacher_cache/cache.py: rows put by each writer, hits and misses of the learner."""
        with reaching(self._url):
            found: Any = self._client.hgetall(f"graft:teachers:{self._project}:{digest}")
        return {field.decode(): int(value) for field, value in sorted(found.items())}

    def logits(self, user_id: str, item_id: str, digests: Sequence[str]) -> list[Found]:
        """What these generations have of one row, however old; one without a usable logit is left out."""
        pipeline = self._client.pipeline(transaction=False)
        for digest in digests:
            key = f"{self._prefix}{digest}:{user_id}".encode("utf-8", "replace")  # no stored id has odd bytes
            pipeline.hget(key, item_id.encode("utf-8", "replace"))  # type: ignore[arg-type] # both may be bytes
        with reaching(self._url):
            values = replies_of(pipeline)
        found = []
        for digest, value in zip(digests, values, strict=True):
            tasks = max(0, len(value or b"") // 4 - 1)
            logit_BT, age_seconds_B = decode([value], tasks, time.time(), np.inf)
            if tasks and np.isfinite(logit_BT).all():
                found.append(Found(digest, [float(logit) for logit in logit_BT[0]], float(age_seconds_B[0])))
        return found

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _values(self, digest: str) -> Iterator[list[bytes]]:
        """What the hashes of up to 1,000 users have, some at a time."""
        with reaching(self._url):
            for keys in islice(self._keys(f"{self._prefix}{digest}:"), _SAMPLED_USERS // _SCAN_KEYS):
                pipeline = self._client.pipeline(transaction=False)
                for key in keys:
                    pipeline.hvals(key)  # type: ignore[arg-type]
                yield [value for reply in replies_of(pipeline) for value in reply or ()]

    def _keys(self, prefix: str) -> Iterator[list[bytes]]:
        """The keys that begin so, some at a time; each may come more than once, as SCAN says."""
        found = self._client.scan_iter(match=literal(prefix.encode()) + b"*", count=_SCAN_KEYS)
        while some := list(islice(found, _SCAN_KEYS)):
            yield some
