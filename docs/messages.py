"""Writes docs/troubleshooting.md: the messages that the code raises or collects, by the topics of troubleshooting.toml.

Run: make docs
"""

import ast
import re
import tomllib
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

_ROOT = Path(__file__).parents[1]
_ROOMS = ("runtime", "features", "stream", "teacher_cache", "student", "graft", "lab")
_HEAD = """# Troubleshooting

Search this page for a part of your message; `…` stands for a value. A message says what is wrong, where, and what to
do next; this page says what else helps. Exit codes: [commands.md](commands.md).

`make docs` generates the lists from the code and takes the advice from [troubleshooting.toml](troubleshooting.toml);
a test keeps the page current.
"""
_VALUE = "…"
_COLLECTS = re.compile(r"(^|_)faults?(_|$)")
_FEWEST_LETTERS = 8  # below: a separator, not a message


class Topic(NamedTuple):
    """A section of the page: the modules whose messages it has, as patterns of their paths, the first that fits."""

    title: str
    modules: list[str]
    advice: str

    def has(self, module: str) -> bool:
        """Whether the messages of a module belong here."""
        return any(fnmatch(module, pattern) and module.count("/") == pattern.count("/") for pattern in self.modules)


class Message(NamedTuple):
    """The text of one error, with `…` for its values, and the module that raises it."""

    module: str
    text: str


def topics() -> list[Topic]:
    """In the order of the page."""
    with (_ROOT / "docs/troubleshooting.toml").open("rb") as file:
        return [Topic(**topic) for topic in tomllib.load(file)["topics"]]


def topic_of(module: str, among: Sequence[Topic]) -> Topic | None:
    """The first one whose patterns name the module itself, else the first with a pattern that fits."""
    named = (topic for topic in among if module in topic.modules)
    return next(named, None) or next((topic for topic in among if topic.has(module)), None)


def messages() -> Iterator[Message]:
    """All that are raised or collected as faults, module by module, in the order of the code; none twice in one."""
    for path in sorted(path for room in _ROOMS for path in (_ROOT / room).rglob("*.py")):
        module = path.relative_to(_ROOT).as_posix()
        if module.startswith("lab/build/"):  # a copy of it that making wheels leaves behind
            continue
        nodes = sorted(_tellers(ast.parse(path.read_text("utf-8"))), key=lambda node: node.lineno)
        texts = (text for node in nodes for text in _texts(node))
        yield from (Message(module, text) for text in dict.fromkeys(texts))


def page() -> str:
    """The whole page."""
    all_topics = topics()
    texts: dict[str, list[str]] = {topic.title: [] for topic in all_topics}
    for message in messages():
        if topic := topic_of(message.module, all_topics):
            texts[topic.title].append(message.text)
    parts = [_HEAD]
    for topic in all_topics:
        listed = "\n".join(f"- `{text}`" for text in dict.fromkeys(texts[topic.title]))
        parts += [f"## {topic.title}", topic.advice.strip(), listed]
    return "\n\n".join(part.strip() for part in parts if part) + "\n"


def _tellers(module: ast.Module) -> Iterator[ast.stmt | ast.expr]:
    """What is raised, and what the functions that collect faults give."""
    for node in ast.walk(module):
        if isinstance(node, ast.Raise):
            yield node
        elif isinstance(node, ast.FunctionDef) and _COLLECTS.search(node.name):
            yield from (part for part in ast.walk(node) if isinstance(part, ast.Return | ast.Yield))


def _texts(node: ast.AST) -> Iterator[str]:
    """The message-like texts of a raise, in the order in which they stand."""
    if isinstance(node, ast.JoinedStr):
        text = "".join(str(v.value) if isinstance(v, ast.Constant) else _VALUE for v in node.values)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        text = node.value
    else:
        for child in ast.iter_child_nodes(node):
            yield from _texts(child)
        return
    text = re.sub(r"\s+", " ", text).replace("`", "'").strip()
    if " " in text and len(text.replace(_VALUE, "")) >= _FEWEST_LETTERS:
        yield text


if __name__ == "__main__":
    (_ROOT / "docs/troubleshooting.md").write_text(page(), "utf-8")
