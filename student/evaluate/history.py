"""The history of the metrics, as Parquet beside the versions: one row per number of examples, slice, task, arm, metric.

::

    VERSIONS/metrics/000000012048.parquet    named by the examples of its last point

Columns: examples, time (UTC, wall clock), task, arm, slice, metric, value. An undefined metric has no row. A file is
written with a version, just before it, and has the points since the version before; so a learner that continues from a
version removes the files beyond it, and no point stands twice.
"""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

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
    return [Point(examples, _parsed(points[examples])) for examples in sorted(points)]


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


def _parsed(slices: Mapping[str, Any]) -> dict[str, Metrics]:
    return {
        name: {task: {arm: ArmMetrics(**values) for arm, values in arms.items()} for task, arms in tasks.items()}
        for name, tasks in slices.items()
    }
