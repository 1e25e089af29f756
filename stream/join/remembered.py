"""The ids of closed impressions, each until event time has passed the moment to forget it.

There may be ten million of them. They are saved in segments of many ids, of which only the newest one still changes.
In memory they cost little: ids stand in a dict without values and in tuples, times in arrays. All of these hold nothing
that refers to something else, so Python's garbage collector does not look into them (a set it would walk through).
"""

import heapq
import json
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from itertools import islice

from stream.join.log_cleaner import Entry

_SEGMENT_IDS = 128  # the newest segment is written anew with each change, a few kilobytes at most
_MOST_DELETED = 1_000  # segments in one transaction: a jump of event time may leave many without an id
_SEGMENT = "remembered"
_ONE_ID = "closed"  # what earlier versions of graft saved: one id, and when to forget it


class _Segment:
    """Some ids and the event times after which each is forgotten, in the order of these."""

    __slots__ = ("forget_ms", "ids")

    def __init__(self, ids: tuple[str, ...], forget_ms: "array[int]") -> None:
        self.ids = ids
        self.forget_ms = forget_ms

    def add(self, impression_id: str, forget_ms: int) -> bool:
        """Take an id; whether it is now the first one to be forgotten."""
        at = bisect_right(self.forget_ms, forget_ms)
        self.ids = (*self.ids[:at], impression_id, *self.ids[at:])
        self.forget_ms.insert(at, forget_ms)
        return at == 0

    def forget(self, before_ms: int) -> tuple[str, ...]:
        """Give away the ids whose time is before this one."""
        count = bisect_left(self.forget_ms, before_ms)
        gone, self.ids = self.ids[:count], self.ids[count:]
        del self.forget_ms[:count]
        return gone

    def value(self) -> bytes:
        """Both as one entry's value."""
        return json.dumps((self.ids, self.forget_ms.tolist()), separators=(",", ":")).encode()


class RememberedIds:
    """A set of ids that forgets each at its own time; `changes()` gives it as entries, `restore` takes them back."""

    def __init__(self) -> None:
        self._ids: dict[str, None] = {}
        self._segments: dict[str, _Segment] = {}
        self._forgetting: list[tuple[int, str]] = []
        """A heap with, for each segment, the time of its first id; older entries may be among them."""
        self._newest = ""
        self._count = 0
        self._dirty: dict[str, None] = {}
        self._emptied: dict[str, None] = {}

    def __contains__(self, impression_id: str) -> bool:
        return impression_id in self._ids

    def add(self, impression_id: str, forget_ms: int) -> None:
        """Remember an id that is not remembered yet until event time is past `forget_ms`."""
        segment = self._segments.get(self._newest)
        if segment is None or len(segment.ids) >= _SEGMENT_IDS:
            self._newest = f"{_SEGMENT}:{self._count}"
            self._count += 1
            segment = self._segments[self._newest] = _Segment((), array("q"))
        if segment.add(impression_id, forget_ms):
            heapq.heappush(self._forgetting, (forget_ms, self._newest))
        self._ids[impression_id] = None
        self._dirty[self._newest] = None

    def forget(self, before_ms: int, most: int) -> int:
        """Forget the ids whose time is before this event time, of at most so many segments; how many it were."""
        looks = 0
        while self._forgetting and self._forgetting[0][0] < before_ms and looks < most:
            looks += 1
            first_ms, key = heapq.heappop(self._forgetting)
            segment = self._segments.get(key)
            if segment is None or segment.forget_ms[0] != first_ms:
                continue
            for impression_id in segment.forget(before_ms):
                del self._ids[impression_id]
            if segment.ids:
                heapq.heappush(self._forgetting, (segment.forget_ms[0], key))
            else:
                del self._segments[key]
                self._dirty.pop(key, None)
                self._emptied[key] = None
        return looks

    def changes(self) -> list[Entry]:
        """The entries that changed since the last call; of those that are gone, the rest comes with later calls.

        An id that was forgotten stands in its segment's entry until all ids of that are forgotten.
        """
        changed: list[Entry] = [(key, self._segments[key].value()) for key in self._dirty]
        self._dirty.clear()
        deleted = list(islice(self._emptied, _MOST_DELETED))
        for key in deleted:
            del self._emptied[key]
        return [*changed, *((key, None) for key in deleted)]

    def entry(self, key: str) -> bytes | None:
        """The value of an entry as of the last `changes()`, without what was forgotten since; None when it is gone."""
        segment = self._segments.get(key)
        return segment.value() if segment else None

    def restore(self, entries: Mapping[str, bytes], watermark_ms: int) -> None:
        """Take back the entries that all `changes()` add up to, but for the ids whose time is before the watermark."""
        for key, value in entries.items():
            kind, _, name = key.partition(":")
            if kind not in (_SEGMENT, _ONE_ID):
                continue
            saved = json.loads(value)
            ids, forget_ms = ([name], [saved]) if isinstance(saved, int) else saved
            if kind == _SEGMENT:
                self._count = max(self._count, int(name) + 1)
            segment = _Segment(tuple(ids), array("q", forget_ms))
            segment.forget(watermark_ms)
            if segment.ids:
                self._segments[key] = segment
                self._ids.update(dict.fromkeys(segment.ids))
                self._forgetting.append((segment.forget_ms[0], key))
            else:
                self._emptied[key] = None
        heapq.heapify(self._forgetting)
