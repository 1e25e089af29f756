"""Which requests were scored before their turn, so that they are not scored again when it comes."""

from collections.abc import Iterable, Sequence

from stream.events import TeacherRequest

_MOST = 500_000
"""Ids that are remembered, about 100 MB; a forgotten one is scored again, which changes nothing."""


class ScoredAhead:
    """The impression ids of one process; another process scores them in their turn."""

    def __init__(self) -> None:
        self._ids: dict[str, None] = {}  # the oldest first

    def __len__(self) -> int:
        return len(self._ids)

    def add(self, requests: Iterable[TeacherRequest]) -> None:
        """Remember them; the oldest are forgotten where they are too many."""
        self._ids |= dict.fromkeys(request.impression_id for request in requests)
        while len(self._ids) > _MOST:
            del self._ids[next(iter(self._ids))]

    def take(self, requests: Sequence[TeacherRequest]) -> list[TeacherRequest]:
        """Those of `requests`, whose turn it is, that were not scored ahead; forgets the others."""
        if not self._ids:
            return list(requests)
        ahead = {request.impression_id for request in requests} & self._ids.keys()
        for impression_id in ahead:
            del self._ids[impression_id]
        return [request for request in requests if request.impression_id not in ahead]
