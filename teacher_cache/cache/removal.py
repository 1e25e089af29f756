"""Removes what generations have left in Redis: logits, unshown rows, what is noted of profiles, and their counts."""

from collections.abc import Iterator

from runtime.compute import batched
from runtime.redis import connect, literal, reaching

_SCAN_KEYS = 1_000  # of one round trip
_KINDS = ("logits", "unshown", "profiles", "backfills")


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
        """How many keys there are: one a user, one an impression with unshown rows, three a profile table, ..."""
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
            found = self._client.scan_iter(match=pattern, count=_SCAN_KEYS)
            yield from batched(found, _SCAN_KEYS)
