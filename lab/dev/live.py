"""What the terminal shows while events stream: a live table, or a plain line every few seconds without a TTY."""

import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Self

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table

from lab.dev.processes import Trouble
from lab.dev.stages import TEACHER

_PLAIN_SECONDS = 5.0
_LONGEST_LINE = 200


class View(NamedTuple):
    """Everything that the table shows; None is not known yet. Lags are records, latencies milliseconds."""

    title: str
    seconds: float
    events: int
    """All events that there are to send."""
    read: int
    """Events that the stream has read, with those of earlier starts."""
    dead_letters: int
    examples: int
    """Written since this start."""
    learned: int
    """Examples that were learnt since the first version."""
    events_per_second: float
    lags: Mapping[str, int | None]
    cache_hit_rate: float | None
    version: str | None
    swaps: int
    scores: Mapping[str, Sequence[float | None]]
    """``AUC of TASK`` or ``RMSE of TASK`` -> student's and control's, row by row."""
    served_scores: Mapping[str, Sequence[float | None]]
    """The same of what versions would have served."""
    requests: int
    failed_requests: int
    requests_per_second: float
    p50_ms: float | None
    p99_ms: float | None
    troubles: Mapping[str, Trouble]
    """Of each process."""


class Screen:
    """Shows views. A context manager; the last view stays on the screen."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None
        self._next_line_at = 0.0

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def finish(self, view: View) -> None:
        """Draw `view` at once, as the last one of what has ended."""
        self._next_line_at = 0.0
        self.show(view)

    def show(self, view: View) -> None:
        """Draw `view`: at once on a terminal, at most every 5 s elsewhere."""
        if self._live is not None:
            self._live.update(table_of(view), refresh=True)
        elif time.monotonic() >= self._next_line_at:
            self._next_line_at = time.monotonic() + _PLAIN_SECONDS
            self._console.print(line_of(view), soft_wrap=True, markup=False, highlight=False)


def table_of(view: View) -> Table:
    """The live table."""
    table = Table(title=escape(f"{view.title}, {view.seconds:.0f} s"), title_justify="left", show_header=False)
    table.add_column(style="bold")
    table.add_column(min_width=60)
    table.add_row("", ProgressBar(total=view.events, completed=view.read, width=60))
    for name, value in _rows(view):
        table.add_row(escape(name), escape(value))
    return table


def line_of(view: View) -> str:
    """The same as one line."""
    return f"[{view.seconds:5.0f} s] " + "; ".join(f"{name} {value}" for name, value in _rows(view))


def _rows(view: View) -> list[tuple[str, str]]:
    hits = f"{_shown(view.cache_hit_rate, '.1%')} of examples had their logit"
    dead = f", {view.dead_letters:,} of them dead letters" if view.dead_letters else ""
    return [
        ("events", f"{view.read:,} of {view.events:,} read{dead}"),
        ("examples", f"{view.examples:,}, {view.learned:,} learnt"),
        ("events/s", f"{view.events_per_second:,.0f}"),
        ("lag", ", ".join(f"{stage} {_shown(lag, ',')}" for stage, lag in view.lags.items())),
        *([("teacher cache", hits)] if TEACHER in view.lags else []),
        ("version", f"{view.version or '-'} after {view.swaps} swaps"),
        ("student / control", _scores(view.scores)),
        ("the same, served", _scores(view.served_scores)),
        ("requests", f"{view.requests:,} ({view.requests_per_second:.0f}/s), {view.failed_requests} failed"),
        ("latency", f"p50 {_shown(view.p50_ms, '.1f', ' ms')}, p99 {_shown(view.p99_ms, '.1f', ' ms')}"),
        ("restarts", str(sum(trouble.restarts for trouble in view.troubles.values()))),
        *((stage, _trouble(trouble)) for stage, trouble in view.troubles.items() if trouble.restarts),
    ]


def _trouble(trouble: Trouble) -> str:
    """A process is told of by the last line of its log, cut where it is long, without control characters."""
    line = "".join(c if c.isprintable() else "?" for c in trouble.last_line)[:_LONGEST_LINE]
    times = "once" if trouble.restarts == 1 else f"{trouble.restarts} times"
    return f"started again {times}; its last line was: {line or '(none)'}"


def _scores(by_task: Mapping[str, Sequence[float | None]]) -> str:
    told = [f"{task} {' / '.join(_shown(score, '.4f') for score in arms)}" for task, arms in by_task.items()]
    return ", ".join(told) or "-"


def _shown(value: float | None, form: str, unit: str = "") -> str:
    return "-" if value is None else f"{value:{form}}{unit}"
