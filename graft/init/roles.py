"""What the columns of a log are, and what the user has said of them."""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from features.config import ContextDtype
from graft.init.columns import Column, TimeUnit, flags, numbers, texts
from graft.init.tables import column
from runtime.errors import InvalidInputError, did_you_mean
from stream.tasks import LARGEST_VALUE, TaskKind

_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    ">=": pc.greater_equal,
    "<=": pc.less_equal,
    "==": pc.equal,
    "!=": pc.not_equal,
    ">": pc.greater,
    "<": pc.less,
}
_FORM = "NAME = COLUMN, NAME = COLUMN >= NUMBER (also > <= < == !=), NAME = COLUMN == 'text', or NAME = 1 for every row"
_EXPRESSION = re.compile(r"\s*(\w+)\s*=(?!=)\s*(.+?)\s*", re.DOTALL)
_COMPARISON = re.compile(r"(.+?)\s*(>=|<=|==|!=|>|<)\s*(.+)", re.DOTALL)
TASK_NAME = re.compile(r"[a-z][a-z0-9_]*")


@dataclass(frozen=True)
class Label:
    """A task and where its labels come from. `column`: "" where every row is a yes; `why`: of one that was guessed."""

    name: str
    kind: TaskKind
    column: str = ""
    comparison: str = ""
    operand: float | str = 0.0
    why: str = ""

    def __str__(self) -> str:
        if not self.column:
            return f"{self.name} = 1"
        return f"{self.name} = {self.column}" + (
            f" {self.comparison} {_shown(self.operand)}" if self.comparison else ""
        )

    def values(self, batch: pa.RecordBatch) -> Any:
        """The label of each row as float64; null where the column says nothing."""
        if not self.column:
            return pa.array([1.0] * len(batch), pa.float64())
        found = column(batch, self.column)
        if not self.comparison:
            return flags(found) if self.kind == "binary" else numbers(found, LARGEST_VALUE)
        compared = texts(found) if isinstance(self.operand, str) else numbers(found)
        return _OPERATORS[self.comparison](compared, self.operand).cast(pa.float64())


def parse_label(text: str, columns: dict[str, Column]) -> Label:
    """The label that an expression says; InvalidInputError says what does not fit."""
    match = _EXPRESSION.fullmatch(text)
    if match is None or not TASK_NAME.fullmatch(match[1]):
        raise InvalidInputError(f"--label {text!r}: must be {_FORM}; NAME has lower-case letters, digits and '_'")
    name, right = match[1], match[2]
    if right == "1":
        return Label(name, "binary")
    if (found := _unquoted(right)) in columns:
        return _of_column(name, columns[found])
    comparison = _COMPARISON.fullmatch(right)
    wanted = _unquoted(comparison[1] if comparison else right)
    if wanted not in columns:
        raise InvalidInputError(
            f"--label {text!r}: no such column, got {wanted!r}{did_you_mean(wanted, list(columns))}"
        )
    assert comparison is not None
    return Label(name, "binary", wanted, comparison[2], _operand(text, comparison[3]))


def _of_column(name: str, found: Column) -> Label:
    if found.is_binary:
        return Label(name, "binary", found.name)
    if found.kind in ("int", "float"):
        return Label(name, "regression", found.name)
    if found.kind == "empty":
        raise InvalidInputError(f"--label '{name} = {found.name}': the column is empty; name another one")
    raise InvalidInputError(
        f"--label '{name} = {found.name}': its values are neither yes and no nor numbers, such as "
        f"{', '.join(map(repr, found.samples))}; compare them, such as: {name} = {found.name} == {found.samples[0]!r}"
    )


def _operand(text: str, right: str) -> float | str:
    if right[:1] in ("'", '"') and right[-1:] == right[:1] and len(right) > 1:
        return right[1:-1]
    try:
        number = float(right)
    except ValueError:
        number = float("nan")
    if number != number or number in (float("inf"), -float("inf")):  # noqa: PLR0124 - NaN
        raise InvalidInputError(f"--label {text!r}: compare with a finite number or a quoted 'text', got {right!r}")
    return number


def _unquoted(text: str) -> str:
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "`'\"" else text


def _shown(operand: float | str) -> str:
    return repr(operand) if isinstance(operand, str) else f"{operand:g}"


Role = Literal["user", "item", "time", "impression", "label"]

ROLES = ("user", "item", "time", "impression", "context")
"""What ``--map ROLE=COLUMN`` may name."""


@dataclass(frozen=True)
class Given:
    """What the user has said: role -> columns, and labels. An empty list of context means: none."""

    columns: Mapping[str, Sequence[str]] = field(default_factory=dict)
    labels: Sequence[str] = ()

    def also(self, role: str, answer: str) -> "Given":
        """With one more answer: a column, or a label."""
        if role == "label":
            return Given(self.columns, [*self.labels, answer])
        return Given({**self.columns, role: [answer]}, self.labels)


class Pick(NamedTuple):
    """A column in its role, and why."""

    role: str
    column: str
    why: str


class Question(NamedTuple):
    """What only a human can decide. `options`: the columns that may be the answer; of a label, example expressions."""

    role: Role
    text: str
    options: list[str]

    def unanswered(self, columns: Collection[str]) -> str:
        """The question with how to answer it on a command line."""
        if self.role == "label":
            return f"{self.text}; say " + ", or ".join(f'--label "{option}"' for option in self.options)
        return f"{self.text}; say --map {self.role}=COLUMN, one of {', '.join(self.options or columns)}"


class ContextColumn(NamedTuple):
    """A column that becomes context, under the name `name`."""

    name: str
    column: str
    dtype: ContextDtype


@dataclass
class Roles:
    """What the columns of a log are; complete only without `questions`."""

    columns: dict[str, Column]
    picks: dict[str, Pick] = field(default_factory=dict)
    unit: TimeUnit | None = None
    labels: list[Label] = field(default_factory=list)
    context: list[ContextColumn] = field(default_factory=list)
    context_why: dict[str, str] = field(default_factory=dict)
    unused: dict[str, str] = field(default_factory=dict)
    questions: list[Question] = field(default_factory=list)

    def column(self, role: Role) -> str:
        """The column of that role."""
        return self.picks[role].column

    def free(self) -> list[Column]:
        """The columns that have no role yet and are not empty."""
        return [column for name, column in self.columns.items() if name not in self.taken() and column.kind != "empty"]

    def taken(self) -> set[str]:
        """The columns that have a role."""
        picked = {pick.column for pick in self.picks.values()}
        return picked | {label.column for label in self.labels} | {c.column for c in self.context}


def context_dtype(column: Column) -> ContextDtype:
    """The type of a column as context."""
    if column.kind in ("int", "bool"):
        return "int"
    return "float" if column.kind == "float" else "str"
