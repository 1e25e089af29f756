"""Finds context that tells a label by itself: such a column may have been written after the answer.

Shapes: N rows, L levels.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from graft.init.labels import Label
from graft.init.log import Log
from graft.init.values import codes_of

_LEVELS = 50
_FEWEST_ROWS = 20 * _LEVELS  # below, 50 levels tell much of any label by chance
_LEAKED = 0.98  # of AUC: what is known before the answer hardly tells as much


class Leak(NamedTuple):
    """The AUC of a binary label by one context column alone, each of whose levels has its own share of yes."""

    context: str
    label: str
    auc: float


def leaks(log: Log, labels: list[Label]) -> Iterator[Leak]:
    """Each context column that alone orders the rows as a label does. None of a log with few rows."""
    if log.rows.num_rows < _FEWEST_ROWS:
        return
    for column in log.rows.column_names:
        if column.startswith("context.") and (level_N := _levels(log.rows[column])) is not None:
            for label in labels:
                auc = _auc(level_N, log.rows[f"label.{label.name}"]) if label.kind == "binary" else None
                if auc is not None and auc >= _LEAKED:
                    yield Leak(column.removeprefix("context."), label.name, auc)


def _levels(column: Any) -> NDArray[np.int64] | None:
    """The level of each row: its value, or which fiftieth of the numbers it lies in; None of texts of many values."""
    code_N = codes_of(column) + 1
    if code_N.max() <= _LEVELS:
        return code_N
    if pa.types.is_large_string(column.type):
        return None
    value_N = pc.fill_null(column.cast(pa.float64()), np.nan).to_numpy()
    edges = np.nanquantile(value_N, np.arange(1, _LEVELS) / _LEVELS)
    level_N: NDArray[np.int64] = np.searchsorted(edges, value_N)
    return level_N


def _auc(level_N: NDArray[np.int64], column: Any) -> float | None:
    """The AUC of the level's share of yes; None where the label never changes."""
    yes_N = pc.fill_null(column, 0.0).to_numpy()
    rows_L, yes_L = np.bincount(level_N), np.bincount(level_N, yes_N)
    no_L = rows_L - yes_L
    order = np.argsort(yes_L / np.maximum(rows_L, 1))
    right_pairs = (yes_L[order] * (np.cumsum(no_L[order]) - no_L[order] / 2)).sum()
    pairs = yes_L.sum() * no_L.sum()
    return float(right_pairs / pairs) if pairs else None
