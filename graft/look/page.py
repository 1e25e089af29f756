"""A look at a log as one HTML page with plots, which needs nothing else."""

from html import escape

from graft.look.look import Look
from graft.look.report import lines

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
