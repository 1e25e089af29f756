"""What the terminal shows while the demo streams: a live table, or a plain line every few seconds without a TTY."""

import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Self

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

_PLAIN_SECONDS = 5.0


class View(NamedTuple):
    """Everything that the table shows; None is not known yet. Lags are records, latencies milliseconds."""

    seconds: float
    impressions: int
    examples: int
    learned: int
    events_per_second: float
    lags: Mapping[str, int | None]
    cache_hit_rate: float | None
    version: str | None
    swaps: int
    auc: Mapping[str, Sequence[float | None]]
    """Binary task -> AUC of student and of control, row by row."""
    served_auc: Mapping[str, Sequence[float | None]]
    """The same of what versions would have served."""
    requests: int
    failed_requests: int
    requests_per_second: float
    p50_ms: float | None
    p99_ms: float | None
    restarts: int


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

    def show(self, view: View) -> None:
        """Draw `view`: at once on a terminal, at most every 5 s elsewhere."""
        if self._live is not None:
            self._live.update(table_of(view), refresh=True)
        elif time.monotonic() >= self._next_line_at:
            self._next_line_at = time.monotonic() + _PLAIN_SECONDS
            self._console.print(line_of(view), soft_wrap=True)


def table_of(view: View) -> Table:
    """The live table."""
    table = Table(title=f"graft demo, {view.seconds:.0f} s", title_justify="left", show_header=False)
    table.add_column(style="bold")
    table.add_column(min_width=60)
    table.add_row("", ProgressBar(total=view.impressions, completed=view.examples, width=60))
    for name, value in _rows(view):
        table.add_row(name, value)
    return table


def line_of(view: View) -> str:
    """The same as one line."""
    return f"[{view.seconds:5.0f} s] " + "; ".join(f"{name} {value}" for name, value in _rows(view))


def _rows(view: View) -> list[tuple[str, str]]:
    return [
        ("examples", f"{view.examples:,} of {view.impressions:,} impressions, {view.learned:,} learnt"),
        ("events/s", f"{view.events_per_second:,.0f}"),
        ("lag", ", ".join(f"{stage} {_shown(lag, ',')}" for stage, lag in view.lags.items())),
        ("teacher cache", f"{_shown(view.cache_hit_rate, '.1%')} of examples had their logit"),
        ("version", f"{view.version or '-'} after {view.swaps} swaps"),
        ("AUC student / control", _aucs(view.auc)),
        ("the same, served", _aucs(view.served_auc)),
        ("requests", f"{view.requests:,} ({view.requests_per_second:.0f}/s), {view.failed_requests} failed"),
        ("latency", f"p50 {_shown(view.p50_ms, '.1f', ' ms')}, p99 {_shown(view.p99_ms, '.1f', ' ms')}"),
        ("restarts", str(view.restarts)),
    ]


def _aucs(by_task: Mapping[str, Sequence[float | None]]) -> str:
    told = [f"{task} {' / '.join(_shown(auc, '.4f') for auc in arms)}" for task, arms in by_task.items()]
    return ", ".join(told) or "-"


def _shown(value: float | None, form: str, unit: str = "") -> str:
    return "-" if value is None else f"{value:{form}}{unit}"
