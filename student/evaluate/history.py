"""The learner's progress: its metrics as a history, in log lines and as gauges.

The history is Parquet beside the versions: one row per number of examples, slice, task, arm, metric.

::

    VERSIONS/metrics/000000012048.parquet    named by the examples of its last point

Columns: examples, time (UTC, wall clock), task, arm, slice, metric, value. An undefined metric has no row. A file is
written with a version, just before it, and has the points since the version before; so a learner that continues from a
version removes the files beyond it, and no point stands twice.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import pyarrow as pa
import pyarrow.parquet as pq
from prometheus_client import Gauge
from pydantic import TypeAdapter

from runtime.folder import make_folder, remove_partial_files, replacing, writing
from student.versions.manifest import ArmMetrics, Metrics

_SCHEMA = pa.schema(
    [
        ("examples", pa.int64()),
        ("time", pa.timestamp("ms", "UTC")),
        ("task", pa.string()),
        ("arm", pa.string()),
        ("slice", pa.string()),
        ("metric", pa.string()),
        ("value", pa.float64()),
    ]
)

METRIC = Gauge(
    "graft_student_progressive_metric",
    "Metrics of predictions made before learning",
    ["metric", "slice", "task", "arm"],
)

EVERY_EXAMPLES = 500
"""A point of the history stands at the first step that reaches a multiple of this."""

_log = logging.getLogger(__name__)

_SLICES = TypeAdapter(dict[str, Metrics])

Row = tuple[int, datetime, str, str, str, str, float]


class Point(NamedTuple):
    """The metrics when `examples` were learnt: slice name -> task -> arm."""

    examples: int
    slices: dict[str, Metrics]


class MetricsHistory:
    """Collects points and writes those since the last `flush` as one file of `folder`."""

    def __init__(self, folder: Path, examples: int) -> None:
        """Go on after `examples`: files with points beyond them, which a killed learner wrote, are removed."""
        self._folder = folder
        self._rows: list[Row] = []
        with writing(folder):
            make_folder(folder)
            for path in _files(folder):
                if int(path.stem) > examples:
                    path.unlink()
        remove_partial_files(folder)

    def add(self, examples: int, slices: Mapping[str, Metrics]) -> None:
        """Keep a point in memory; `examples` grows from point to point."""
        now = datetime.now(UTC)
        self._rows += ((examples, now, *row) for row in defined(slices))

    def flush(self) -> None:
        """Write the points added since the last time as one file; GraftError when the disk refuses, and they stay."""
        if not self._rows:
            return
        path = self._folder / f"{self._rows[-1][0]:012d}.parquet"
        columns = zip(*self._rows, strict=True)
        arrays = [pa.array(column, kind) for column, kind in zip(columns, _SCHEMA.types, strict=True)]
        with replacing(path) as file:
            pq.write_table(pa.Table.from_arrays(arrays, schema=_SCHEMA), file)
        self._rows = []


def read_history(folder: Path) -> list[Point]:
    """The points of a history by examples; none where there is no folder."""
    points: dict[int, dict[str, Any]] = {}
    for path in _files(folder):
        columns = [pq.read_table(path, schema=_SCHEMA)[name].to_pylist() for name in _SCHEMA.names]
        for examples, _, task, arm, slice_name, metric, value in zip(*columns, strict=True):
            tasks = points.setdefault(examples, {}).setdefault(slice_name, {})
            tasks.setdefault(task, {}).setdefault(arm, {})[metric] = value
    return [Point(examples, _SLICES.validate_python(points[examples])) for examples in sorted(points)]


def defined(slices: Mapping[str, Metrics]) -> Iterator[tuple[str, str, str, str, float]]:
    """Task, arm, slice, metric and value of every metric that is defined."""
    for slice_name, tasks in slices.items():
        for task, arms in tasks.items():
            for arm, metrics in arms.items():
                for metric, value in metrics:
                    if value is not None:
                        yield task, arm, slice_name, metric, float(value)


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("[0-9]*.parquet"))


class Evaluation(Protocol):
    """Has judged some arms."""

    def whole(self) -> Metrics:
        """Over all examples."""
        ...

    def slices(self) -> dict[str, Metrics]:
        """Over every slice."""
        ...


class Progress:
    """Reports evaluations while the learner goes on, all arms together."""

    def __init__(self, folder: Path, examples: int, evaluations: Sequence[Evaluation]) -> None:
        """Go on after `examples`; `folder` holds the history."""
        self._history = MetricsHistory(folder, examples)
        self._evaluations = evaluations
        self._examples = examples
        self._told = self._whole()
        _log.info("progress lines have arm=loss since the line before or this start/loss of all/mean prediction/AUC")

    def update(self, examples: int) -> None:
        """After a step: add a point if it reached a multiple of `EVERY_EXAMPLES`, log lines if a power of two."""
        before, self._examples = self._examples, examples
        if examples // EVERY_EXAMPLES > before // EVERY_EXAMPLES:
            self._history.add(examples, self._slices())
        if examples.bit_length() > before.bit_length():
            self._log(examples)

    def publish(self) -> dict[str, Metrics]:
        """Write the history and set the gauges, just before a version is published; the metrics of every slice."""
        self._history.flush()
        slices = self._slices()
        set_gauges(slices)
        return slices

    def _whole(self) -> Metrics:
        return _together([evaluation.whole() for evaluation in self._evaluations])

    def _slices(self) -> dict[str, Metrics]:
        each = [evaluation.slices() for evaluation in self._evaluations]
        return {name: _together([slices[name] for slices in each]) for name in each[0]}

    def _log(self, examples: int) -> None:
        whole = self._whole()
        for line in progress_lines(examples, self._told, whole):
            _log.info("%s", line)
        self._told = whole


def _together(each: Sequence[Metrics]) -> Metrics:
    """The arms of all, task by task."""
    return {task: {arm: found for metrics in each for arm, found in metrics[task].items()} for task in each[0]}


def progress_lines(examples: int, before: Metrics, now: Metrics) -> Iterator[str]:
    """A line per task, in the manner of Vowpal Wabbit's: losses since `before` and of all, predictions, AUC.

    Losses are log loss (nats) or squared error.
    """
    for task, arms in now.items():
        known = before.get(task, {})
        parts = [f"{arm}={_line_part(known.get(arm), metrics)}" for arm, metrics in arms.items()]
        if parts:
            label = next(iter(arms.values())).label_mean
            yield " ".join([f"progress examples={examples} task={task} label={_short(label)}", *parts])


def set_gauges(slices: dict[str, Metrics]) -> None:
    """Set the gauge of every metric that is defined, of every slice, task and arm."""
    for task, arm, name, metric, value in defined(slices):
        METRIC.labels(metric, name, task, arm).set(value)


def _line_part(before: ArmMetrics | None, now: ArmMetrics) -> str:
    values = [_loss_since(before, now), _loss(now), now.prediction_mean]
    if now.positives is not None:
        values.append(now.auc)
    drawn = "" if now.auc_against_drawn is None else f"({_short(now.auc_against_drawn)} against drawn)"
    return "/".join(map(_short, values)) + drawn


def _loss_since(before: ArmMetrics | None, now: ArmMetrics) -> float | None:
    """The mean loss of the examples counted since `before`."""
    if before is None:
        return _loss(now)
    count = now.count - before.count
    return (_loss(now) * now.count - _loss(before) * before.count) / count if count else None


def _loss(metrics: ArmMetrics) -> float:
    if metrics.log_loss is not None:
        return metrics.log_loss
    assert metrics.rmse is not None
    return metrics.rmse**2


def _short(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
