"""Decides which columns of a log are labels, where the user has not said it."""

import re
from collections.abc import Collection, Sequence

from graft.init import names
from graft.init.columns import Column
from graft.init.files import is_unnamed
from graft.init.labels import Label, parse_label
from graft.init.roles import Question, Roles
from runtime.errors import InvalidInputError

_FEW = 20  # values of a text that tells what a user did
_ODD_NUMBER = re.compile(r"\W*\d[\d.,' ]*\s*\W?\w{0,3}")  # 3,5 and 1,000.50 and $4 and 12 EUR


def take_labels(roles: Roles, given: Sequence[str], context: Sequence[str]) -> None:
    """The labels that were given, else those that are found; a question where the answers cannot be read.

    A column that was given as context is no answer, whatever it is called.
    """
    if given:
        roles.labels = [parse_label(text, roles.columns) for text in given]
        doubled = [a.name for i, a in enumerate(roles.labels) if a.name in [b.name for b in roles.labels[:i]]]
        if doubled:
            raise InvalidInputError(f"--label: the name {doubled[0]!r} stands more than once")
        return
    free = [column for column in roles.free() if column.name not in context and not is_unnamed(column.name)]
    for column in free:
        if label := _label(column, [known.name for known in roles.labels]):
            roles.labels.append(label)
    _add_liked(roles)
    if not roles.labels and (told := [column for column in free if _tells_answers(column)]):
        roles.questions.append(_label_question(told[0]))
    elif not roles.labels:
        roles.labels = [Label("positive", "binary", why="no column is a label, so every row is a yes")]


def _label(column: Column, taken: Collection[str]) -> Label | None:
    """The label that a column seems to be: known when the impression is over, by its name or as yes and no."""
    name = names.identifier(column.name, taken, "task")
    is_number = column.kind in ("int", "float")
    if names.means(column.name, names.CONTEXT) or column.name.startswith("context."):
        return None
    if column.is_binary:
        by_name = names.means(column.name, names.BINARY | names.NUMBER) > 0
        return Label(
            name, "binary", column.name, why="its name, and yes or no" if by_name else "its values are yes or no"
        )
    if is_number and names.means(column.name, names.BINARY) >= 2 and {float(v) for v in column.values} == {-1.0, 1.0}:
        return Label(name, "binary", column.name, ">", 0.0, "its name, and 1 or -1")
    if is_number and names.means(column.name, names.NUMBER | names.BINARY) >= 2:
        return Label(name, "regression", column.name, why="its name, and numbers")
    return None


def is_no_label(column: Column) -> bool:
    """Whether a column is called as a label and has texts that are neither numbers nor yes and no."""
    return names.means(column.name, names.NUMBER | names.BINARY) >= 2 and column.kind == "text"


def _tells_answers(column: Column) -> bool:
    """Whether a text tells what a user did: one of a few, or a number that is written otherwise."""
    is_few = column.kind == "text" and 1 < len(column.values) <= _FEW
    if names.is_called_event(column.name):
        return is_few
    return is_no_label(column) and (is_few or _is_odd_number(column))


def _is_odd_number(column: Column) -> bool:
    return all(_ODD_NUMBER.fullmatch(sample.strip()) for sample in column.samples)


def _label_question(column: Column) -> Question:
    text = (
        f"which rows are a yes? {column.name!r} has values such as {', '.join(column.samples)}, which are neither "
        "numbers such as 3.5 nor yes and no; convert or compare them"
    )
    every = "positive = 1"
    if _is_odd_number(column):
        return Question("label", text, [every])
    value = [*column.samples, *(value for value in column.values if names.means(value, names.BINARY))][-1]
    return Question("label", text, [f"{names.identifier(value, (), 'task')} = {column.name} == {value!r}", every])


def _add_liked(roles: Roles) -> None:
    """Add the label `liked`, the upper part of a rating's scale, where no label is a yes or no."""
    ratings = [label for label in roles.labels if label.kind == "regression"]
    if not ratings or any(label.kind == "binary" for label in roles.labels):
        return
    column = roles.columns[ratings[0].column]
    if names.means(column.name, {"rating", "stars", "star", "score", "grade"}) and len(column.values) <= 21:
        bound = column.low + 0.75 * (column.high - column.low)
        scale = sorted(float(value) for value in column.values)
        if column.low < bound:
            bound = next(value for value in scale if value >= bound)
            why = "a rating in the upper quarter of its scale"
            roles.labels.insert(0, Label("liked", "binary", column.name, ">=", bound, why))
