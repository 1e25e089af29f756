"""What all reports share: the page with its tables, the look of the pictures, and the machine of the numbers.

A page needs no other file: the pictures, PNG files, are inside it.
"""

import html
import os
import platform
import re
from base64 import b64encode
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from runtime.folder import replacing
from student.evaluate.arms import CONTROL, ITEM_MEAN, STUDENT, TEACHER

NOTHING = "&ndash;"
"""In place of a value that there is not."""

MEASURES = {"binary": "AUC, more is better", "regression": "RMSE, less is better"}
"""By the kind of a task."""

_PAGE = Template((files("lab") / "page.html").read_text("utf-8"))


def page(title: str, body: str) -> str:
    """The whole page; `body` is HTML."""
    return _PAGE.substitute(title=html.escape(title), body=body)


def table(rows: Sequence[tuple[str, ...]], head: Sequence[str] = ()) -> str:
    """A row's first cell is its own head; `head` names the columns."""
    lines = [f"<th>{name}</th>" + "".join(f"<td>{value}</td>" for value in values) for name, *values in rows]
    lines = ["".join(f"<th>{name}</th>" for name in head), *lines] if head else lines
    return '<div class="wide"><table>' + "".join(f"<tr>{line}</tr>" for line in lines) + "</table></div>"


def figure(picture: Path, says: str) -> str:
    """A PNG file as a part of the page."""
    content = b64encode(picture.read_bytes()).decode()
    return f'<figure><img src="data:image/png;base64,{content}" alt="{html.escape(says)}"></figure>\n'


def sentences(said: Sequence[str]) -> str:
    """A list of sentences, whose Markdown is code alone."""
    return "<ul>" + "".join(f"<li>{_plain(sentence)}</li>" for sentence in said) + "</ul>"


def shown(value: float | None, digits: int = 4) -> str:
    """A number with so many digits after the point."""
    return NOTHING if value is None else f"{value:.{digits}f}"


def _plain(sentence: str) -> str:
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", html.escape(sentence))


MACHINE = f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, Python {platform.python_version()}"


INK, FAINT = "#22272e", "#d9dde3"
COLOURS = {STUDENT: "#0b6bcb", CONTROL: "#d9730d", TEACHER: "#6b4fbb", ITEM_MEAN: "#8a919c"}


def style(axes: Axes, title: str, x_label: str, grid: Literal["x", "y"] = "y") -> None:
    """Title, axis label, and a faint grid along one axis."""
    axes.set_title(title, loc="left", fontsize=10.5, color=INK, fontweight="bold")
    axes.set_xlabel(x_label, fontsize=9)
    axes.grid(axis=grid, color=FAINT, linewidth=0.7)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=INK, labelsize=8.5)


def save(figure: Figure, path: Path) -> None:
    """Write the figure to `path` as a PNG file, whole or not at all; GraftError when the disk refuses."""
    with replacing(path) as file:
        figure.savefig(file, format="png", dpi=110, metadata={"Software": "graft"})
