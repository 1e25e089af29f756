"""Reads a log, or the log of a project folder, and finds its figures."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from graft.init.columns import codes_of
from graft.init.log import DAY_MS, IN_THE_FUTURE, Log, leaks, read_any_log
from graft.init.report import moment
from graft.init.roles import Given, Label
from graft.project import FILE_NAME, Project, load_project
from stream.config import StreamConfig
from student.versions.manifest import StudentConfig

_TENTHS = 10


class Figures(BaseModel):
    """What the parts have in common."""

    model_config = ConfigDict(frozen=True)


class TaskFigures(Figures):
    """The labels of one task. `mean`: of a binary task the base rate; `by_tenth`: the mean in each tenth of the log.

    `begins_ms`: the time of the first row that says yes or no, where many rows lie before it; those count as no.
    `delay_p99_ms`: the time between impression and feedback that 99 of 100 do not exceed; None where the log has none.
    """

    name: str
    kind: str
    labelled: float
    mean: float
    low: float
    high: float
    p99: float
    by_tenth: list[float]
    begins_ms: int | None = None
    delay_p99_ms: float | None = None
    delay_high_ms: float | None = None


class EntityFigures(Figures):
    """Users, or items. `rows_median` and so on: rows that each has. `once`: the share of them with one row.

    `unseen`: the share of rows with one that no row before had, in the whole log and in each tenth.
    """

    distinct: int
    rows_median: float
    rows_p90: float
    rows_most: int
    once: float
    unseen: float
    unseen_by_tenth: list[float]


class ContextFigures(Figures):
    """A context column that tells a binary label by itself: `auc` is that of the label by this column alone."""

    context: str
    task: str
    auc: float


class LogFigures(Figures):
    """A whole log. `gap_ms`: the longest time between two rows; `days_without`: days between the first and the last."""

    rows: int
    users: EntityFigures
    items: EntityFigures
    tasks: list[TaskFigures]
    first_ms: int
    last_ms: int
    gap_ms: int
    gap_from_ms: int
    days: int
    days_without: int
    rows_by_day: list[int]
    midnights: bool
    duplicates: int
    unsorted: int
    left_out: dict[str, int]
    bytes: int
    leaks: list[ContextFigures] = []
    without_impression: int = 0
    doubled_impressions: int = 0


class Overlap(Figures):
    """How much of a log is known. `by`: a view, or teacher.inputs.NAME; `of`: the ids, or the feature, that it reads.

    `known`: the share of the log's rows; `ids`: the share of the distinct values.
    """

    by: str
    of: str
    known: float
    ids: float


def figures_of(
    log: Log,
    labels: list[Label],
    disk_bytes: int,
    delays_ms: dict[str, NDArray[Any]],
    without_impression: int = 0,
    doubled: int = 0,
) -> LogFigures:
    """The figures of a log with at least one row."""
    times = log.rows["time_ms"].to_numpy()
    gaps = np.diff(times)
    longest = int(gaps.argmax()) if len(gaps) else 0
    days = times // DAY_MS
    by_day = np.bincount(days - days[0])
    return LogFigures(
        rows=len(times),
        users=_entity(log.rows["user"]),
        items=_entity(log.rows["item"]),
        tasks=[_task(label, log, delays_ms.get(label.name)) for label in labels],
        first_ms=int(times[0]),
        last_ms=int(times[-1]),
        gap_ms=int(gaps[longest]) if len(gaps) else 0,
        gap_from_ms=int(times[longest]),
        days=len(by_day),
        days_without=int((by_day == 0).sum()),
        rows_by_day=by_day.tolist(),
        midnights=log.has_midnights_alone(),
        duplicates=log.doubled(),
        unsorted=log.unsorted,
        left_out=dict(log.left_out),
        bytes=disk_bytes,
        leaks=[ContextFigures(context=leak.context, task=leak.label, auc=leak.auc) for leak in leaks(log, labels)],
        without_impression=without_impression,
        doubled_impressions=doubled,
    )


def _entity(column: Any) -> EntityFigures:
    codes = codes_of(column)
    counts = np.bincount(codes)
    _, first = np.unique(codes, return_index=True)
    is_new = np.zeros(len(codes), np.float64)
    is_new[first] = 1.0
    return EntityFigures(
        distinct=len(counts),
        rows_median=float(np.median(counts)),
        rows_p90=float(np.quantile(counts, 0.9)),
        rows_most=int(counts.max()),
        once=float((counts == 1).mean()),
        unseen=float(is_new.mean()),
        unseen_by_tenth=_by_tenth(is_new),
    )


def _task(label: Label, log: Log, delays: NDArray[Any] | None) -> TaskFigures:
    column = log.rows[f"label.{label.name}"]
    filled = (len(column) - column.null_count) / len(column)
    values = np.asarray((pc.fill_null(column, 0.0) if label.kind == "binary" else column).to_numpy(), np.float64)
    known = values[np.isfinite(values)]
    has_delays = delays is not None and len(delays) > 0
    return TaskFigures(
        name=label.name,
        kind=label.kind,
        labelled=filled,
        mean=float(known.mean()) if len(known) else 0.0,
        low=float(known.min(initial=np.inf)) if len(known) else 0.0,
        high=float(known.max(initial=-np.inf)) if len(known) else 0.0,
        p99=float(np.quantile(known, 0.99)) if len(known) else 0.0,
        by_tenth=_by_tenth(values),
        begins_ms=log.label_begins_ms(label.name) if label.kind == "binary" else None,
        delay_p99_ms=float(np.quantile(delays, 0.99)) if has_delays and delays is not None else None,
        delay_high_ms=float(delays.max()) if has_delays and delays is not None else None,
    )


def _by_tenth(values: NDArray[np.float64]) -> list[float]:
    """The mean of the finite values in each tenth; 0 in one without any."""
    parts = [part[np.isfinite(part)] for part in np.array_split(values, min(_TENTHS, len(values)))]
    return [float(part.mean()) if len(part) else 0.0 for part in parts]


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


class Look(NamedTuple):
    """The figures of a log, how much of it a project knows, and advice on what in it will hurt."""

    figures: LogFigures
    overlaps: list[Overlap]
    advice: list[str]


class Read(NamedTuple):
    """A log with its figures, and the project whose log it is; None: it is a mere log."""

    log: Log
    figures: LogFigures
    project: Project | None


def read(where: str, given: Given) -> Read:
    """Read a log in any form, or that of a project folder.

    InvalidInputError names what cannot be read, with every column that must be named.
    """
    project = load_project(Path(where)) if (Path(where) / FILE_NAME).exists() else None
    found = read_any_log(str(project.event_file) if project else where, given)
    size, labels = found.table.disk_bytes, found.roles.labels
    if (told := found.documented) is None:
        return Read(found.log, figures_of(found.log, labels, size, {}), project)
    odd = (told.without_impression, told.doubled)
    return Read(found.log, figures_of(found.log, labels, size, told.delays_ms, *odd), project)


def judged(found: Read, overlaps: list[Overlap]) -> Look:
    """The look, with advice by the settings of the log's project; of a mere log by their defaults."""
    project = found.project
    stream, student = (project.stream, project.student) if project else (StreamConfig(), StudentConfig())
    windows = {task.name: task.window_seconds for task in project.tasks} if project else {}
    return Look(found.figures, overlaps, list(advice(found.figures, overlaps, stream, student, windows)))
