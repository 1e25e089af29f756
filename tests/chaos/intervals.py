"""When the parts of a world were away."""

from collections import defaultdict
from collections.abc import Callable

_GRACE_SECONDS = 30.0  # a process that has met an absence may still wait for a time-out, or be about to say so


class Intervals:
    """When things were away, in `seconds`."""

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._began: dict[str, float] = {}
        self._ended: dict[str, list[tuple[float, float]]] = defaultdict(list)

    def begin(self, what: str) -> None:
        """It is away, from now on if it was not yet."""
        self._began.setdefault(what, self._seconds())

    def end(self, what: str) -> None:
        """It is back."""
        self._ended[what].append((self._began.pop(what), self._seconds()))

    def open(self) -> list[str]:
        """What is away now."""
        return list(self._began)

    def of(self, what: str) -> list[tuple[float, float]]:
        """When it was away, until now if it still is."""
        now = [(self._began[what], self._seconds())] if what in self._began else []
        return [*self._ended[what], *now]

    def covers(self, what: str, at: float) -> bool:
        """Whether it was away at that time, or so lately that a process may end of it."""
        return any(begin <= at <= until + _GRACE_SECONDS for begin, until in self.of(what))
