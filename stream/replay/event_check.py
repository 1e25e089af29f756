"""What is wrong with a whole event file before it is sent: its form, and the unit of its times."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

from runtime.errors import InvalidInputError
from stream.replay.event_file import FileEvent, read_events

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
