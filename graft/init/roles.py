"""What the columns of a log are, and what the user has said of them."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from features.config import ContextDtype
from graft.init.columns import Column
from graft.init.labels import Label
from graft.init.values import TimeUnit

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
