"""The figures of a log. Its rows are in the order of time; a tenth is a tenth of the rows."""

from typing import Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from graft.init.labels import Label
from graft.init.leaks import leaks
from graft.init.log import DAY_MS, Log
from graft.init.values import codes_of

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
