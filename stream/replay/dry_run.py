"""What is wrong with an event file before it is sent: form, times, and what the stream checks without features."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from runtime.errors import InvalidInputError
from stream.config import StreamConfig
from stream.events import Feedback, Impression
from stream.join.validation import Validator
from stream.replay.event_file import FileEvent, read_events
from stream.tasks import TaskSpec

_LOOKED_AT = 10_000  # events at the file's beginning: a unit of time is that of a whole file
_FIRST_MS = round(datetime(1990, 1, 1, tzinfo=UTC).timestamp() * 1000)
_AHEAD_MS = 86_400_000
_UNITS = (("seconds", 1e3), ("microseconds", 1e-3), ("nanoseconds", 1e-6))


def check_form(path: Path) -> None:
    """InvalidInputError when no row at the file's beginning is an event, such as in a CSV file."""
    found = list(islice(read_events(path), _LOOKED_AT))
    if found and all(event.kind == "unreadable" for event in found):
        first = f"{path}, line {found[0].number}: {found[0].value[:80]!r} is no event"
        raise InvalidInputError(
            f"{first}, and none of the first {len(found):,} lines is: an event is a JSON object or a Parquet row with "
            "the type impression or feedback; 'graft init' writes events from CSV and other tables; nothing was sent"
        )


def check_times(path: Path, now_ms: int) -> None:
    """InvalidInputError when most times at the file's beginning cannot be milliseconds since 1970 of real events.

    Such are other units, texts, and what lies before 1990 or more than a day after `now_ms`. The text has the first
    one's line and value, and what to write. Rows without a time are dead letters of their own, and say nothing here.
    """
    found = list(islice(_times(path), _LOOKED_AT))
    wrong = [(event, time) for event, time in found if not _is_plausible(time, now_ms)]
    if 2 * len(wrong) > len(found):
        event, time = wrong[0]
        raise InvalidInputError(
            f"{path}, line {event.number}: event_time_ms is {json.dumps(time)[:80]}, must be milliseconds since 1970 "
            f"between 1990 and tomorrow; {_advice(time, now_ms)}; {len(wrong):,} of the first {len(found):,} events "
            "have such times, nothing was sent"
        )


def _times(path: Path) -> Iterator[tuple[FileEvent, Any]]:
    for event in read_events(path):
        if event.kind != "unreadable" and "event_time_ms" in (fields := json.loads(event.value)):
            yield event, fields["event_time_ms"]


def _is_plausible(time: Any, now_ms: int) -> bool:
    return isinstance(time, int) and not isinstance(time, bool) and _FIRST_MS <= time <= now_ms + _AHEAD_MS


def _advice(time: Any, now_ms: int) -> str:
    """What the time seems to be, and what to write in its place."""
    if isinstance(time, str):
        try:
            moment = datetime.fromisoformat(time)
        except ValueError:
            return f"write a number, such as {now_ms}"
        return f"it is a text: write {_in_ms(moment if moment.tzinfo else moment.replace(tzinfo=UTC))}"
    if not isinstance(time, int | float) or isinstance(time, bool) or time != time or abs(time) > 2.0**70:  # noqa: PLR0124 - NaN
        return f"write a number, such as {now_ms}"
    if _is_plausible(round(time), now_ms):
        return f"write it as a whole number: {round(time)}"
    for unit, in_ms in _UNITS:
        if _is_plausible(round(time * in_ms), now_ms):
            return f"these are {unit}, it seems: write {round(time * in_ms)}"
    return f"as milliseconds it is {_named(round(time))}: shift the file's times, such as to end now, at {now_ms}"


def _in_ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)


def _named(time_ms: int) -> str:
    """The day of a time, also where the calendar has none."""
    try:
        return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=time_ms)).date().isoformat()
    except OverflowError:
        return "after the year 9999" if time_ms > 0 else "before the year 1"


class Fault(NamedTuple):
    """Why a line would become a dead letter: the code of docs/dead-letters.md, and the reason."""

    line: int
    code: str
    reason: str


class Expected(NamedTuple):
    """What would become of a file's events.

    `first_ms`, `last_ms`: the earliest and the latest time of what can be used, None without any. `dead_letters`: how
    many by code. `first_fault`: that of the earliest line. `duplicates`: impressions that would be dropped. `backward`:
    events that stand after a later one of their kind.
    """

    first_ms: int | None
    last_ms: int | None
    dead_letters: dict[str, int]
    first_fault: Fault | None
    duplicates: int
    backward: int


def expect(path: Path, validator: Validator, tasks: Sequence[TaskSpec], config: StreamConfig, now_ms: int) -> Expected:
    """What would become of the events if they were sent at `now_ms`, with no other events before or between them.

    What is only known while it runs is not foreseen: `late` and `too_late` of a file that is not in the order of time.
    """
    return _DryRun(validator, tasks, config, now_ms).read(path)


class _DryRun:
    def __init__(self, validator: Validator, tasks: Sequence[TaskSpec], config: StreamConfig, now_ms: int) -> None:
        self._validator = validator
        self._window_ms = {task.name: round(task.window_seconds * 1000) for task in tasks}
        self._ahead_ms = now_ms + round(config.max_ahead_seconds * 1000)
        self._shown_ms: dict[str, int] = {}
        self._waiting: list[tuple[int, Feedback]] = []
        self._last_ms: dict[str, int] = {}
        self._first_ms: int | None = None
        self._duplicates = self._backward = 0

    def read(self, path: Path) -> Expected:
        """Take the whole file."""
        codes: Counter[str] = Counter()
        first: Fault | None = None
        for fault in self._faults(path):
            codes[fault.code] += 1
            if first is None or fault.line < first.line:
                first = fault
        last_ms = max(self._last_ms.values(), default=None)
        return Expected(self._first_ms, last_ms, dict(codes), first, self._duplicates, self._backward)

    def _faults(self, path: Path) -> Iterator[Fault]:
        for event in read_events(path):
            if fault := self._fault(event):
                yield fault
        for line, feedback in self._waiting:  # their impression may have come later in the file
            if fault := self._fault_of_feedback(line, feedback):
                yield fault

    def _fault(self, event: FileEvent) -> Fault | None:
        """What is wrong with one line; feedback whose impression has not come yet waits for the end."""
        validator = self._validator
        try:
            read = validator.feedback(event.value) if event.kind == "feedback" else validator.impression(event.value)
        except InvalidInputError as error:
            return Fault(event.number, "invalid", str(error))
        time_ms = read.event_time_ms
        if time_ms > self._ahead_ms:
            reason = f"event_time_ms: {time_ms} is further ahead of the clock than stream.max_ahead_seconds"
            return Fault(event.number, "ahead", reason)
        self._note(event.kind, time_ms)
        if isinstance(read, Impression):
            self._duplicates += read.impression_id in self._shown_ms
            self._shown_ms.setdefault(read.impression_id, time_ms)
            return None
        if read.impression_id in self._shown_ms:
            return self._fault_of_feedback(event.number, read)
        self._waiting.append((event.number, read))
        return None

    def _note(self, kind: str, time_ms: int) -> None:
        last_ms = self._last_ms.get(kind, time_ms)
        self._backward += time_ms < last_ms
        self._last_ms[kind] = max(time_ms, last_ms)
        self._first_ms = time_ms if self._first_ms is None else min(time_ms, self._first_ms)

    def _fault_of_feedback(self, line: int, feedback: Feedback) -> Fault | None:
        shown_ms = self._shown_ms.get(feedback.impression_id)
        if shown_ms is None:
            return Fault(line, "no_impression", f"impression_id: the file has no impression {feedback.impression_id}")
        window_ms, after_ms = self._window_ms[feedback.task], feedback.event_time_ms - shown_ms
        if 0 <= after_ms <= window_ms:
            return None
        reason = (
            f"event_time_ms: feedback of task {feedback.task} must come 0 to {window_ms} ms after its impression, "
            f"got {after_ms} ms"
        )
        return Fault(line, "outside_window", reason)
