"""Decides what each column of a log is: user, item, time, impression id, label, context; by name and content."""

import re
from collections.abc import Collection, Sequence

from features.contract import MAX_TEXT_CHARACTERS
from graft.init import names
from graft.init.columns import Column
from graft.init.files import is_unnamed
from graft.init.roles import ROLES, ContextColumn, Given, Label, Pick, Question, Role, Roles, context_dtype, parse_label
from graft.init.tables import FILE_DATE
from runtime.errors import InvalidInputError, did_you_mean

_WORDS: dict[Role, Collection[str]] = {
    "user": names.USER,
    "item": names.ITEM,
    "time": names.TIME,
    "impression": names.IMPRESSION,
}
_UNUSED = "not used; --map context=... if it is known when the item is shown, --label if it is an answer"


def decide(columns: dict[str, Column], given: Given) -> Roles:
    """The role of each column; InvalidInputError for what was given and does not fit."""
    _check_given(columns, given)
    roles = Roles(columns)
    picked: tuple[Role, ...] = ("time", "user", "item", "impression")
    for role in sorted(picked, key=lambda role: role not in given.columns):  # what is given is not guessed away
        if role in given.columns:
            _take_given(roles, role, given.columns[role])
        else:
            _guess(roles, role)
    if roles.questions:
        return roles
    take_labels(roles, given.labels, given.columns.get("context", ()))
    if roles.questions:
        return roles
    _context(roles, given.columns.get("context"))
    for name, column in columns.items():
        if name not in roles.taken():
            roles.unused[name] = "empty" if column.kind == "empty" else _not_read(column) + _UNUSED
    return roles


def _check_given(columns: dict[str, Column], given: Given) -> None:
    for role, wanted in given.columns.items():
        if role not in ROLES:
            raise InvalidInputError(f"--map {role}=...: no such role{did_you_mean(role, ROLES)}")
        for name in wanted:
            if name not in columns:
                raise InvalidInputError(f"--map {role}={name}: no such column{did_you_mean(name, list(columns))}")


def _take_given(roles: Roles, role: Role, given: Sequence[str]) -> None:
    if len(given) > 1:
        raise InvalidInputError(f"--map {role}=...: one column, got {', '.join(given)}")
    column = roles.columns[given[0]]
    if other := next((pick.role for pick in roles.picks.values() if pick.column == column.name), None):
        raise InvalidInputError(f"--map {role}={column.name}: is the {other} already; name another column")
    if role == "time" and not _is_time(column):
        raise InvalidInputError(f"--map time={column.name}: {_no_time(column)}")
    _take(roles, role, column, "given")


def _guess(roles: Roles, role: Role) -> None:
    """Take the one column that fits a role best by name and content; else ask for it."""
    rated = sorted(
        ((rate, column) for column in roles.free() if (rate := _rate(role, column)) > 0), key=lambda r: -r[0]
    )
    best = [column for rate, column in rated if rate == rated[0][0]]
    if role == "time" and all(_is_chance(column) for column in best) and _unread_times(roles):
        best = []
    if len(best) == 1 and (rated[0][0] > 1 or role == "time"):
        _take(roles, role, best[0], _why(role, best[0]))
    elif role != "impression":
        roles.questions.append(_question(roles, role, best))


def _take(roles: Roles, role: Role, column: Column, why: str) -> None:
    roles.picks[role] = Pick(role, column.name, why)
    if role == "time":
        roles.unit = column.time_unit


def _rate(role: Role, column: Column) -> float:
    """How well a column fits a role; 0 not at all."""
    by_name = names.means(column.name, _WORDS[role])
    if role == "time":
        if not _is_time(column) or (_is_chance(column) and _is_no_time_by_name(column.name)):
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


def _is_chance(column: Column) -> bool:
    """Whether only the size of its numbers says that it is a time: numbers of orders or telephones have it too."""
    return column.kind != "time" and not names.means(column.name, names.TIME)


def _is_no_time_by_name(name: str) -> bool:
    return names.is_called_id(name) or is_unnamed(name)


def _unread_times(roles: Roles) -> list[Column]:
    return [c for c in roles.free() if names.means(c.name, names.TIME) >= 2 and not _is_time(c)]


def _not_read(column: Column) -> str:
    """Why a column is not what it is called, as the beginning of a sentence; "" where it is called nothing else."""
    if names.means(column.name, names.TIME) >= 2 and not _is_time(column):
        return f"called as a time, but {_no_time(column)}; "
    if is_no_label(column):
        return "called as a label, but its values are neither numbers such as 3.5 nor yes and no; "
    return ""


def _why(role: Role, column: Column) -> str:
    if role == "time":
        if column.name == FILE_DATE:
            return "no column is a time; every file's name has a date"
        unit = column.time_unit
        form = f"numbers that are times since 1970 in {unit}" if unit else "times as ISO 8601"
        return f"its name, and {form}" if names.means(column.name, names.TIME) else f"the only one with {form}"
    return "its name"


def _question(roles: Roles, role: Role, best: list[Column]) -> Question:
    free = [column.name for column in best or roles.free()]
    if len(best) == 1:
        return Question(role, f"which column is the {role}? {free[0]!r} may be it by its name", free)
    if best:
        return Question(role, f"which column is the {role}? {' and '.join(free)} fit alike", free)
    if role == "time":
        near = _unread_times(roles) or [c for c in roles.free() if names.means(c.name, names.TIME)]
        hint = f"{near[0].name!r} is called so, but {_no_time(near[0])}" if near else "no column holds times"
        return Question(role, f"which column is the time? {hint}", [])
    return Question(role, f"which column is the {role}? none is called so", free)


def _no_time(column: Column) -> str:
    shown = ", ".join(column.samples)
    if column.kind in ("int", "float"):
        numbers = f"its numbers from {column.low:g} to {column.high:g}"
        return f"{numbers} are no times of 1990 to 2100 in s, ms, us or ns since 1970"
    return f"its values, such as {shown}, are no ISO 8601 such as 2026-01-31 or 2026-01-31T10:00:00+02:00; convert them"


def _context(roles: Roles, given: Sequence[str] | None) -> None:
    answers = {label.column for label in roles.labels}
    if leaked := [name for name in given or () if name in answers]:
        raise InvalidInputError(f"--map context={leaked[0]}: is a label, which nobody knows when the item is shown")
    for pick in roles.picks.values():
        if pick.column in (given or ()):
            raise InvalidInputError(f"--map context={pick.column}: is the {pick.role} already; name another column")
    free = [roles.columns[name] for name in dict.fromkeys(given)] if given is not None else roles.free()
    for column in free:
        by_name = names.means(column.name, names.CONTEXT) > 0 or column.name.startswith("context.")
        if given is None and not by_name:
            continue
        dtype = context_dtype(column)
        if dtype == "str" and (column.longest > MAX_TEXT_CHARACTERS or column.kind == "list"):
            if given is not None:
                raise InvalidInputError(
                    f"--map context={column.name}: must be numbers or texts of at most {MAX_TEXT_CHARACTERS} "
                    f"characters, got {'lists' if column.kind == 'list' else 'longer ones'}; leave the column out"
                )
            continue
        name = names.identifier(
            column.name.removeprefix("context."), [known.name for known in roles.context], "context"
        )
        roles.context.append(ContextColumn(name, column.name, dtype))
        roles.context_why[column.name] = "given" if given is not None else "its name"


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
