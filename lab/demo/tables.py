"""Tables of the report, as HTML."""

from collections.abc import Sequence

NOTHING = "&ndash;"
"""In place of a value that there is not."""

MEASURES = {"binary": "AUC, more is better", "regression": "RMSE, less is better"}
"""By the kind of a task."""


def table(rows: Sequence[tuple[str, ...]], head: Sequence[str] = ()) -> str:
    """A row's first cell is its own head; `head` names the columns."""
    lines = [f"<th>{name}</th>" + "".join(f"<td>{value}</td>" for value in values) for name, *values in rows]
    lines = ["".join(f"<th>{name}</th>" for name in head), *lines] if head else lines
    return "<table>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>"


def shown(value: float | None, digits: int = 4) -> str:
    """A number with so many digits after the point."""
    return NOTHING if value is None else f"{value:.{digits}f}"
