"""Decides what each column of a log is: user, item, time, impression id, label, context; by name and content."""

from collections.abc import Collection, Sequence

from features.contract import MAX_TEXT_CHARACTERS
from graft.init import names
from graft.init.columns import Column
from graft.init.files import is_unnamed
from graft.init.guessed_labels import is_no_label, take_labels
from graft.init.roles import ROLES, ContextColumn, Given, Pick, Question, Role, Roles, context_dtype
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
