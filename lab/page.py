"""The page that all reports of the laboratory are: one look, tables, pictures inside it. It needs no other file."""

import html
import re
from base64 import b64encode
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from string import Template

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
