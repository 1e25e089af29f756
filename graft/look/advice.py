"""Advice on what in a log will hurt, with the key of graft.toml, or the step, that handles it."""

from collections.abc import Iterator

from graft.init.log import IN_THE_FUTURE
from graft.init.report import moment
from graft.look.figures import EntityFigures, LogFigures, Overlap, TaskFigures
from stream.config import StreamConfig
from student.versions.manifest import StudentConfig

_FEW_ROWS = 1_000
_RARE = 0.01
_MOSTLY = 0.9
_DRIFT = 1.5


def advice(
    found: LogFigures,
    overlaps: list[Overlap],
    stream: StreamConfig,
    student: StudentConfig,
    windows: dict[str, float],
) -> Iterator[str]:
    """One line for each thing that will hurt. `windows`: task -> window_seconds; of a mere log it is empty."""
    yield from _of_times(found, stream)
    for task in found.tasks:
        yield from _of_task(task, windows.get(task.name))
    for leak in found.leaks:
        yield (
            f"context {leak.context} alone tells {leak.task} (AUC {leak.auc:.2f}): leave it out, unless it is known "
            "when the item is shown"
        )
    for name, entity in (("users", found.users), ("items", found.items)):
        yield from _of_entity(name, entity, found.rows, student)
    for overlap in overlaps:
        if overlap.known < _MOSTLY:
            default = "its default" if overlap.by.startswith("teacher.inputs.") else "features.defaults"
            yield f"{overlap.by} knows {overlap.known:.1%} of the rows by {overlap.of}; the other rows get {default}"
    if found.rows < _FEW_ROWS:
        yield (
            f"{found.rows:,} rows are few: begin with a version that has learnt from the teacher, by 'graft student "
            "bootstrap' ([bootstrap] rows and steps)"
        )


def _of_times(found: LogFigures, stream: StreamConfig) -> Iterator[str]:
    if found.unsorted:
        yield (
            f"{found.unsorted:,} rows came before an earlier one: in a stream they may be too late; 'graft init' "
            f"writes them in order, stream.dedup_seconds ({stream.dedup_seconds:g}) is how late a live one may be"
        )
    if future := found.left_out.get(IN_THE_FUTURE):
        yield (
            f"{future:,} rows lie in the future: dead letters beyond stream.max_ahead_seconds "
            f"({stream.max_ahead_seconds:g}); is the time in another unit or zone?"
        )
    if found.midnights:
        yield "all times are midnights: what was known before a row, and running aggregates, are right to a day at best"
    if found.duplicates > 0.01 * found.rows:
        yield (
            f"{found.duplicates:,} rows have the user, item and time of another one: give them one impression id if "
            "they are one impression, then stream.dedup_seconds drops the second"
        )
    if found.doubled_impressions:
        yield (
            f"{found.doubled_impressions:,} impressions have the id of an earlier one: the stream drops them within "
            f"stream.dedup_seconds ({stream.dedup_seconds:g})"
        )
    if found.without_impression:
        yield f"{found.without_impression:,} feedback events have no impression here: dead letters (no_impression)"


def _of_task(task: TaskFigures, window_seconds: float | None) -> Iterator[str]:
    if task.low == task.high:
        yield f"{task.name} is {task.low:g} in every row: nothing can be learnt of it; add rows of another value"
        return
    if task.kind == "binary" and not _RARE <= task.mean <= 1 - _RARE:
        yield f"{task.name} has a base rate of {task.mean:.2%}: look at normalized entropy, not at accuracy; distil it"
    if task.kind == "regression" and task.high > 100 * max(abs(task.p99), 1e-9):
        yield f"{task.name} has labels up to {task.high:g} where 99 % are at most {task.p99:g}: set tasks.range"
    first, last = task.by_tenth[0], task.by_tenth[-1]
    if task.begins_ms is not None:
        yield (
            f"no row before {moment(task.begins_ms)} UTC says yes or no to {task.name}, and each counts as no: leave "
            "those rows out, or the label, if it was not logged then"
        )
    elif min(first, last) >= 0 and max(first, last) > _DRIFT * max(min(first, last), 1e-9):
        yield (
            f"{task.name} drifts, from a mean of {first:.3g} in the first tenth to {last:.3g} in the last: "
            "features.aggregates.half_life_seconds forgets what is old"
        )
    if window_seconds is not None and task.delay_high_ms is not None and task.delay_high_ms > window_seconds * 1000:
        yield (
            f"feedback of {task.name} comes up to {task.delay_high_ms / 1000:,.0f} s after its impression, and tasks."
            f"window_seconds is {window_seconds:g}: what is later is a dead letter (outside_window)"
        )


def _of_entity(name: str, entity: EntityFigures, rows: int, student: StudentConfig) -> Iterator[str]:
    if entity.distinct > student.remembered_ids:
        yield (
            f"{entity.distinct:,} {name} are more than student.remembered_ids ({student.remembered_ids:,}): the "
            "posterior forgets the oldest"
        )
    if entity.distinct > student.table_rows:
        yield f"{entity.distinct:,} {name} share student.table_rows ({student.table_rows:,}) rows of embeddings"
    if len(entity.unseen_by_tenth) > 1 and entity.unseen_by_tenth[-1] > 0.3:
        yield (
            f"{entity.unseen_by_tenth[-1]:.0%} of the last tenth's rows have {name} that nobody has seen: a table of "
            f"{name} and [[features.profiles]] say something of them"
        )
    if entity.rows_most > 0.1 * rows and rows >= _FEW_ROWS:
        yield f"one of the {name} has {entity.rows_most / rows:.0%} of all rows: a robot, or a default id?"
