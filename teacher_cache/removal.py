"""Removes what a teacher version has left in Redis: logits, unshown rows, and what is noted of profiles."""

from collections.abc import Iterator
from itertools import islice

from runtime.redis import connect, literal, reaching

_SCAN_KEYS = 1_000  # of one round trip
_KINDS = ("logits", "unshown", "profiles")


class CachedKeys:
    """The keys of one teacher version; ServiceUnavailableError when Redis does not answer."""

    def __init__(self, redis_url: str, teacher_version: str) -> None:
        self._url = redis_url
        self._client = connect(redis_url)
        self._patterns = [literal(f"graft:{kind}:{teacher_version}:".encode()) + b"*" for kind in _KINDS]

    def count(self) -> int:
        """How many keys there are: one a user, one an impression with unshown rows, three a profile table."""
        with reaching(self._url):
            return sum(map(len, self._keys()))

    def remove(self) -> int:
        """Remove them all; how many there were."""
        removed = 0
        with reaching(self._url):
            for keys in self._keys():
                self._client.unlink(*keys)
                removed += len(keys)
        return removed

    def _keys(self) -> Iterator[list[bytes]]:
        """The keys, some at a time."""
        for pattern in self._patterns:
            found = self._client.scan_iter(match=pattern, count=_SCAN_KEYS)
            while some := list(islice(found, _SCAN_KEYS)):
                yield some
