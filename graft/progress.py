"""Progress on standard error: a bar on a terminal, a plain line every few seconds elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress, TextColumn

from runtime.telemetry import say

Advance = Callable[[int, int | None], None]
"""Called with what is done and the total, None when that is not known."""

_LINE_SECONDS = 5.0


@contextmanager
def progress(label: str) -> Iterator[Advance]:
    """Show how far the block has come; the block calls what it is given to say so."""
    if not sys.stderr.isatty():
        yield _Lines(label)
        return
    columns = *Progress.get_default_columns(), TextColumn("{task.completed:,.0f}, {task.fields[rate]}")
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task, started = bar.add_task(label, total=None, rate=""), time.monotonic()
        yield lambda done, total: bar.update(
            task, completed=done, total=total, rate=_per_time(done / max(1e-3, time.monotonic() - started))
        )


class _Lines:
    """At most one line every few seconds."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._started = time.monotonic()
        self._next = self._started + _LINE_SECONDS

    def __call__(self, done: int, total: int | None) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + _LINE_SECONDS
            rate = done / (time.monotonic() - self._started)
            of = f" of {total:,}" if total else ""
            left = f", {(total - done) / rate:,.0f} s left" if total and rate else ""
            say(f"{self._label}: {done:,}{of}, {_per_time(rate)}{left}")


def _per_time(rate: float) -> str:
    """So that what takes minutes each does not come at 0 a second."""
    return f"{rate:,.0f}/s" if rate >= 1 else f"{60 * rate:.2g}/min"
