"""A look at a log as lines of text."""

from collections.abc import Iterator
from html import escape

from graft.init.look import EntityFigures, LogFigures, Look
from graft.init.report import aligned, moment

_BARS = " ▁▂▃▄▅▆▇█"


def lines(found: Look) -> Iterator[str]:
    """The whole report."""
    figures = found.figures
    yield f"{figures.rows:,} rows, {figures.bytes:,} bytes ({figures.bytes / figures.rows:,.0f} a row)"
    yield from (f"  left out: {count:,} {reason}" for reason, count in figures.left_out.items())
    yield from _times(figures)
    yield ""
    entities = [_entity_row("users", figures.users), _entity_row("items", figures.items)]
    yield from aligned(
        ("", "distinct", "rows each: median", "p90", "most", "once", "unseen", "by tenth of the log"), entities
    )
    yield ""
    yield from aligned(
        ("task", "kind", "labelled", "mean", "range", "p99", "delay p99", "by tenth"), _task_rows(figures)
    )
    yield f"duplicates: {figures.duplicates:,} rows; out of order: {figures.unsorted:,}"
    if found.overlaps:
        yield ""
        rows = [[o.by, o.of, f"{o.known:.1%}", f"{o.ids:.1%}"] for o in found.overlaps]
        yield from aligned(("known by", "of", "rows", "distinct"), rows)
    yield ""
    yield "what will hurt:" if found.advice else "nothing in it will hurt"
    yield from (f"  - {line}" for line in found.advice)


def bars(values: list[float]) -> str:
    """A row of blocks, the highest for the largest value."""
    top = max(values, default=0.0)
    return "".join(_BARS[round(8 * max(0.0, value) / top)] if top > 0 else _BARS[0] for value in values)


def _times(figures: LogFigures) -> Iterator[str]:
    yield f"from {moment(figures.first_ms)} to {moment(figures.last_ms)} UTC: {figures.days:,} days"
    gap = figures.gap_ms / 1000
    yield (
        f"longest gap {gap:,.0f} s after {moment(figures.gap_from_ms)}; {figures.days_without:,} days without a row; "
        f"by day {bars(_thinned(figures.rows_by_day))}"
    )


def _thinned(values: list[int], most: int = 60) -> list[float]:
    """At most so many sums of neighbours."""
    step = -(-len(values) // most)
    return [float(sum(values[i : i + step])) for i in range(0, len(values), step)]


def _entity_row(name: str, found: EntityFigures) -> list[str]:
    return [
        name,
        f"{found.distinct:,}",
        f"{found.rows_median:g}",
        f"{found.rows_p90:g}",
        f"{found.rows_most:,}",
        f"{found.once:.0%}",
        f"{found.unseen:.1%}",
        f"{bars(found.unseen_by_tenth)} {found.unseen_by_tenth[0]:.0%} to {found.unseen_by_tenth[-1]:.0%}",
    ]


def _task_rows(figures: LogFigures) -> list[list[str]]:
    return [
        [
            task.name,
            task.kind,
            f"{task.labelled:.1%}",
            f"{task.mean:.4g}",
            f"{task.low:g} to {task.high:g}",
            f"{task.p99:g}",
            "" if task.delay_p99_ms is None else f"{task.delay_p99_ms / 1000:g} s",
            f"{bars(task.by_tenth)} {task.by_tenth[0]:.3g} to {task.by_tenth[-1]:.3g}",
        ]
        for task in figures.tasks
    ]


_WIDTH, _HEIGHT = 640, 120
_STYLE = (
    "body{font:15px sans-serif;max-width:60em;margin:2em auto}pre{overflow-x:auto}rect{fill:#4878a8}h2{font-size:1em}"
)


def page(title: str, found: Look) -> str:
    """The page: the report, then a plot for each figure that changes as the log goes on."""
    figures = found.figures
    plots = [("rows by day", [float(rows) for rows in figures.rows_by_day])]
    plots += [
        (f"share of rows with an unseen {name}, by tenth of the log", entity.unseen_by_tenth)
        for name, entity in (("user", figures.users), ("item", figures.items))
    ]
    plots += [(f"mean of {task.name}, by tenth of the log", task.by_tenth) for task in figures.tasks]
    body = "\n".join(_plot(name, values) for name, values in plots)
    report = escape("\n".join(lines(found)))
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title><style>{_STYLE}</style>\n'
        f"<h1>{escape(title)}</h1>\n<pre>{report}</pre>\n{body}\n</html>\n"
    )


def _plot(name: str, values: list[float]) -> str:
    """One bar a value, up from 0, with the highest value beside its name."""
    top = max([*values, 0.0]) or 1.0
    step = _WIDTH / max(1, len(values))
    bars = "".join(
        f'<rect x="{i * step:.2f}" y="{_HEIGHT * (1 - max(0.0, value) / top):.2f}" width="{max(0.5, step * 0.9):.2f}" '
        f'height="{_HEIGHT * max(0.0, value) / top:.2f}"><title>{value:g}</title></rect>'
        for i, value in enumerate(values)
    )
    return (
        f'<h2>{escape(name)} (highest: {top:g})</h2>\n<svg width="{_WIDTH}" height="{_HEIGHT}" role="img">{bars}</svg>'
    )
