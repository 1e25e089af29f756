"""What `graft init` took and why, for people: a table with sample values, and what only a human can know."""

import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import pyarrow.compute as pc

from graft.init.columns import INTEGER_TEXT, TIME_TEXT
from graft.init.log import leaks
from graft.init.plan import WINDOW_SECONDS, Plan
from graft.init.roles import Label, Roles
from stream.tasks import LARGEST_VALUE

_SHOWN_CHARACTERS = 36


def role_rows(roles: Roles) -> list[list[str]]:
    """One row a column of the log: its role, its name, its kind, sample values, why."""
    rows = [_row(pick.role, roles, pick.column, pick.why) for pick in roles.picks.values()]
    for label in roles.labels:
        why = f"{label.why or 'given'} ({label.kind})"
        rows.append(
            _row(f"label {short(str(label))}", roles, label.column, why)
            if label.column
            else [f"label {label}", "", "", "", why]
        )
    for context in roles.context:
        why = roles.context_why[context.column]
        rows.append(_row(f"context {context.name}", roles, context.column, why))
    return rows + [_row("-", roles, name, why) for name, why in roles.unused.items()]


def aligned(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The rows as lines of text with their columns below each other."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in [head, *rows]]
    return [line.rstrip() for line in lines]


def input_rows(plan: Plan) -> list[list[str]]:
    """One row an input of the teacher: its type, what feeds it, the share of rows in which that is missing, why."""
    assert plan.teacher is not None
    return [
        [
            match.name,
            match.type,
            match.candidate.name if match.candidate else f"default {match.default!r}",
            f"{1 - match.candidate.filled:.0%}" if match.candidate else "100%",
            match.why,
        ]
        for match in plan.teacher.inputs
    ]


def notes(plan: Plan) -> Iterator[str]:
    """What was left out or looks odd."""
    log = plan.log
    for reason, count in log.left_out.most_common():
        yield f"left out: {count:,} {reason}"
    if log.unsorted:
        yield f"{log.unsorted:,} rows came before an earlier one; the events are written in the order of their times"
    yield from _id_notes(plan.roles)
    if doubled := log.doubled():
        yield f"{doubled:,} rows have the user, item and time of another one; each is an impression of its own"
    if log.has_midnights_alone():
        yield "every time is a midnight: within a day the rows keep the order of the files, true or not"
    yield from _zone_notes(plan.roles)
    yield from _label_notes(plan)
    if len(plan.tables) < 2:
        yield "a table of users or of items is missing: 'graft student bootstrap' takes their ids with --events"
    yield from _profile_notes(plan)
    for entity_table in plan.tables:
        yield from entity_table.notes
        if entity_table.covered < 1:
            yield (
                f"{entity_table.where}: {1 - entity_table.covered:.1%} of the log's rows have "
                f"{_an(entity_table.entity)} that the table does not have: they get the defaults"
            )


def _label_notes(plan: Plan) -> Iterator[str]:
    for label in plan.roles.labels:
        base = plan.bases[label.name]
        if base.filled < 1:
            missing = "counts as no" if label.kind == "binary" else "has no label"
            beyond = f", or a number beyond {LARGEST_VALUE:g}" if _is_beyond(plan.roles, label) else ""
            yield f"{label.name}: {1 - base.filled:.1%} of the rows say nothing{beyond}; such a row {missing}"
        if label.kind == "binary" and (begins_ms := plan.log.label_begins_ms(label.name)) is not None:
            yield (
                f"{label.name}: no row before {moment(begins_ms)} UTC says yes or no, and each counts as no: leave "
                "those rows out, or the label, if it was not logged then"
            )


def moment(time_ms: int) -> str:
    """A time in UTC, to the second."""
    return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _is_beyond(roles: Roles, label: Label) -> bool:
    column = roles.columns.get(label.column)
    return label.kind == "regression" and column is not None and max(-column.low, column.high) > LARGEST_VALUE


def _id_notes(roles: Roles) -> Iterator[str]:
    """Of ids that look like two kinds of the same, as far as their distinct values were kept."""
    for entity in ("user", "item"):
        column = roles.columns[roles.picks[entity].column]
        others = [value for value in column.values if not re.match(INTEGER_TEXT, value)]
        if column.kind != "int" and 0 < len(others) < len(column.values) / 2:
            yield (
                f"{column.name}: most ids are integers, but {short(others[0])!r} is none, so all are texts: events and "
                f'requests must have "17", not 17; leave such rows out for integers'
            )
        alike = len(column.values) - len({value.lower() for value in column.values})
        if alike:
            yield f"{column.name}: {alike:,} ids differ from another one in upper and lower case alone; each is its own"


def _zone_notes(roles: Roles) -> Iterator[str]:
    """Of texts of time of which some have a zone, as far as their distinct values were kept."""
    column = roles.columns[roles.picks["time"].column]
    times = [match for value in column.values if (match := re.match(TIME_TEXT, value))]
    zoned, bare = ([time[0] for time in times if bool(time["zone"]) == has_zone] for has_zone in (True, False))
    if zoned and bare:
        yield (
            f"{column.name}: some times have a zone, such as {short(zoned[0])}; those without one, such as "
            f"{short(bare[0])}, are taken as UTC"
        )


def _profile_notes(plan: Plan) -> Iterator[str]:
    for profile in plan.profiles:
        others = "items" if profile.entity == "user" else "users"
        columns = ", ".join(f"{profile.view}:{name}" for name in profile.means)
        yield f"features of what the teacher says of {_an(profile.entity)} on average over {others}: {columns}"
    if plan.teacher and not plan.profiles:
        why = "what it says of each, with all else at its default, is the same"
        if len(plan.tables) < 2:
            why = "that takes a table of users and one of items"
        yield f"no feature of what the teacher says of a user or an item on average: {why}"


def only_a_human(plan: Plan) -> Iterator[str]:
    """What cannot follow from any data."""
    if plan.drawn_negatives:
        yield (
            "what was shown and not taken: every row is a yes, so beside each of them "
            f"{plan.drawn_negatives} negatives are drawn, items that were known by then ([sampling] drawn_negatives). "
            "What is learnt depends on how they are drawn. AUC against them is not that among shown items, and a score "
            f"is no rate: it tells an item from {plan.drawn_negatives} drawn ones. The first row of each item, "
            f"{_first_rows(plan):.0%} of the log, is not learnt, since no drawn row could have had it. "
            "docs/sampling.md says which recipe answers which question. If your product knows what was shown, log that "
            "instead"
        )
    for label in plan.roles.labels:
        base = plan.bases[label.name]
        if base.low == base.high and not (plan.drawn_negatives and label.kind == "binary"):
            what = f"{base.low:g}" if label.kind == "regression" else "yes" if base.low == 1 else "no"
            yield (
                f"where {label.name} is not {what}: every row says {what}, so nothing can be learnt of it; add the "
                "impressions that were answered otherwise, or name another label with --label"
            )
    for leak in leaks(plan.log, plan.roles.labels):
        yield (
            f"whether context {leak.context} is known when the item is shown: it alone tells {leak.label} (AUC "
            f"{leak.auc:.2f}); if it is written after the answer, name the right ones with --map context=..., or none "
            "with --map context="
        )
    if all(label.kind == "regression" and label.why for label in plan.roles.labels):
        yield (
            "whether each row is a yes: no column is a yes or no, so the tasks are numbers alone; if the log has only "
            "what was bought or taken, name that with --label 'taken = 1'"
        )
    if not plan.windows:
        yield (
            f"how long an answer takes: the log has one time a row; window_seconds is {WINDOW_SECONDS}, and must be "
            "above the time within which your product sends feedback"
        )
    if plan.tables:
        yield "since when the rows of the tables hold: they are taken to hold since the first event of the log"
    if plan.teacher is None:
        yield (
            "where the teacher is: graft.toml has none, so the student learns from its labels alone; train one on the "
            "sister product's log with 'graft teacher fit', or run 'graft init' into a new folder, with its model as "
            "ONNX (--teacher) or its log (--source-events)"
        )
        return
    yield from plan.teacher.notes


def _first_rows(plan: Plan) -> float:
    """The share of the rows that are the first of their item."""
    items = plan.log.rows["item"]
    return float(pc.count_distinct(items).as_py()) / len(items)


def _row(role: str, roles: Roles, name: str, why: str) -> list[str]:
    column = roles.columns[name]
    many = f" of {len(column.values):,} values" if not column.is_many else " of many values"
    unit = f" in {roles.unit}" if role == "time" and roles.unit else ""
    return [role, short(name), f"{column.kind}{unit}{many}", short(", ".join(column.samples)), why]


def short(text: str) -> str:
    """A text on one line, cut where it is long, without control characters: a terminal would obey them."""
    line = "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))
    return line if len(line) <= _SHOWN_CHARACTERS else f"{line[: _SHOWN_CHARACTERS - 3]}..."


def _an(entity: str) -> str:
    return f"{'an' if entity == 'item' else 'a'} {entity}"
