"""Decides what each column of a log is: user, item, time, impression id, label, context; by name and content."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from graft.init import names
from graft.init.columns import Column
from graft.init.labels import Label, parse_label
from graft.init.tables import FILE_DATE
from graft.init.values import TimeUnit
from runtime.errors import InvalidInputError, did_you_mean

Role = Literal["user", "item", "time", "impression"]

_LONGEST_TEXT = 256  # of the contract of events (features/contract.py)
_WORDS: dict[Role, Collection[str]] = {
    "user": names.USER,
    "item": names.ITEM,
    "time": names.TIME,
    "impression": names.IMPRESSION,
}
_UNUSED = "not used; --map context=... if it is known when the item is shown, --label if it is an answer"
ROLES = ("user", "item", "time", "impression", "context")
"""What ``--map ROLE=COLUMN`` may name."""


@dataclass(frozen=True)
class Given:
    """What the user has said: role -> columns, and labels. An empty list of context means: none."""

    columns: Mapping[str, Sequence[str]] = field(default_factory=dict)
    labels: Sequence[str] = ()

    def also(self, role: str, column: str) -> "Given":
        """With one more answer."""
        return Given({**self.columns, role: [column]}, self.labels)


class Pick(NamedTuple):
    """A column in its role, and why."""

    role: str
    column: str
    why: str


class Question(NamedTuple):
    """What only a human can decide. `options` are the columns that it may be."""

    role: Role
    text: str
    options: list[str]

    def unanswered(self, columns: Collection[str]) -> str:
        """The question with how to answer it on a command line."""
        return f"{self.text}; say --map {self.role}=COLUMN, one of {', '.join(self.options or columns)}"


class ContextColumn(NamedTuple):
    """A column that becomes context, under the name `name`."""

    name: str
    column: str
    dtype: Literal["int", "float", "str"]


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

    def taken(self) -> set[str]:
        """The columns that have a role."""
        picked = {pick.column for pick in self.picks.values()}
        return picked | {label.column for label in self.labels} | {c.column for c in self.context}


def decide(columns: dict[str, Column], given: Given) -> Roles:
    """The role of each column; InvalidInputError for what was given and does not fit."""
    _check_given(columns, given)
    roles = Roles(columns)
    for role in ("time", "user", "item", "impression"):
        _pick(roles, role, given.columns.get(role))
    if roles.questions:
        return roles
    _labels(roles, given)
    _context(roles, given.columns.get("context"))
    for name, column in columns.items():
        if name not in roles.taken():
            roles.unused[name] = "empty" if column.kind == "empty" else _UNUSED
    return roles


def context_dtype(column: Column) -> Literal["int", "float", "str"]:
    """The type of a column as context."""
    if column.kind in ("int", "bool"):
        return "int"
    return "float" if column.kind == "float" else "str"


def _check_given(columns: dict[str, Column], given: Given) -> None:
    for role, wanted in given.columns.items():
        if role not in ROLES:
            raise InvalidInputError(f"--map {role}=...: no such role{did_you_mean(role, ROLES)}")
        for name in wanted:
            if name not in columns:
                raise InvalidInputError(f"--map {role}={name}: no such column{did_you_mean(name, list(columns))}")


def _pick(roles: Roles, role: Role, given: Sequence[str] | None) -> None:
    if given:
        if len(given) > 1:
            raise InvalidInputError(f"--map {role}=...: one column, got {', '.join(given)}")
        column, why = roles.columns[given[0]], "given"
        if role == "time" and not _is_time(column):
            raise InvalidInputError(f"--map time={column.name}: {_no_time(column)}")
        _take(roles, role, column, why)
        return
    rated = sorted(
        ((rate, column) for column in _free(roles) if (rate := _rate(role, column)) > 0), key=lambda r: -r[0]
    )
    best = [column for rate, column in rated if rate == rated[0][0]]
    if len(best) == 1:
        _take(roles, role, best[0], _why(role, best[0]))
    elif role != "impression":
        roles.questions.append(_question(roles, role, best))


def _take(roles: Roles, role: Role, column: Column, why: str) -> None:
    roles.picks[role] = Pick(role, column.name, why)
    if role == "time":
        roles.unit = column.time_unit


def _free(roles: Roles) -> list[Column]:
    return [column for name, column in roles.columns.items() if name not in roles.taken() and column.kind != "empty"]


def _rate(role: Role, column: Column) -> float:
    """How well a column fits a role; 0 not at all."""
    by_name = names.means(column.name, _WORDS[role])
    if role == "time":
        if not _is_time(column):
            return 0
        return by_name + (0.5 if column.name != FILE_DATE else 0) + (0.25 if "time" in column.name.lower() else 0)
    if column.kind not in ("int", "text", "float", "time"):
        return 0
    has_id = bool({"id", "key", "uuid", "hash"} & set(names.words(column.name)))
    if role == "impression":
        is_unique = column.is_many or len(column.values) == column.rows
        return by_name if by_name == 3 and has_id and is_unique else 0
    return by_name + 0.5 * has_id if by_name else 0


def _is_time(column: Column) -> bool:
    return column.kind == "time" or column.time_unit is not None


def _why(role: Role, column: Column) -> str:
    if role == "time":
        if column.name == FILE_DATE:
            return "no column is a time; every file's name has a date"
        unit = column.time_unit
        form = f"numbers that are times since 1970 in {unit}" if unit else "times as ISO 8601"
        return f"its name, and {form}" if names.means(column.name, names.TIME) else f"the only one with {form}"
    return "its name"


def _question(roles: Roles, role: Role, best: list[Column]) -> Question:
    free = [column.name for column in best or _free(roles)]
    if best:
        return Question(role, f"which column is the {role}? {' and '.join(free)} fit alike", free)
    if role == "time":
        near = [c for c in _free(roles) if names.means(c.name, names.TIME)]
        hint = f"{near[0].name!r} is called so, but {_no_time(near[0])}" if near else "no column holds times"
        return Question(role, f"which column is the time? {hint}", [])
    return Question(role, f"which column is the {role}? none is called so", free)


def _no_time(column: Column) -> str:
    shown = ", ".join(column.samples)
    if column.kind in ("int", "float"):
        return f"its numbers from {column.low:g} to {column.high:g} are no s, ms, us or ns since 1970 of 1990 to 2100"
    return f"its values, such as {shown}, are no ISO 8601 such as 2026-01-31 or 2026-01-31T10:00:00+02:00; convert them"


def _labels(roles: Roles, given: Given) -> None:
    if given.labels:
        roles.labels = [parse_label(text, roles.columns) for text in given.labels]
        doubled = [a.name for i, a in enumerate(roles.labels) if a.name in [b.name for b in roles.labels[:i]]]
        if doubled:
            raise InvalidInputError(f"--label: the name {doubled[0]!r} stands more than once")
        return
    for column in _free(roles):
        if label := _label(column, [known.name for known in roles.labels]):
            roles.labels.append(label)
    _add_liked(roles)
    if not roles.labels:
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
    if is_number and names.means(column.name, names.NUMBER | names.BINARY) >= 2:
        return Label(name, "regression", column.name, why="its name, and numbers")
    return None


def _add_liked(roles: Roles) -> None:
    """A yes or no beside a rating, where there is none: the upper part of its scale."""
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


def _context(roles: Roles, given: Sequence[str] | None) -> None:
    free = [roles.columns[name] for name in given] if given is not None else _free(roles)
    for column in free:
        by_name = names.means(column.name, names.CONTEXT) > 0 or column.name.startswith("context.")
        if given is None and not by_name:
            continue
        dtype = context_dtype(column)
        if dtype == "str" and (column.longest > _LONGEST_TEXT or column.kind == "list"):
            if given is not None:
                raise InvalidInputError(f"--map context={column.name}: values of more than {_LONGEST_TEXT} characters")
            continue
        name = names.identifier(
            column.name.removeprefix("context."), [known.name for known in roles.context], "context"
        )
        roles.context.append(ContextColumn(name, column.name, dtype))
        roles.context_why[column.name] = "given" if given is not None else "its name"
