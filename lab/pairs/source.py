"""The `source/` folder of a pair's project: what its teacher is trained on, rows of the source domain alone.

Shapes: N rows in time order.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import ValidationError

from runtime.errors import InvalidInputError
from teacher_cache.fit.source import Source, TeacherDesign

_FOLDER = "source"
_DESIGN = "design.json"
_TABLES = "tables.npz"


def save_source(source: Source, project: Path) -> None:
    """Write `project`/source."""
    folder = project / _FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _DESIGN).write_text(source.design.model_dump_json(indent=2) + "\n", encoding="utf-8")
    np.savez(folder / _TABLES, **source.tables)  # type: ignore[arg-type]


def load_source(project: Path) -> Source:
    """Read `project`/source; InvalidInputError when the folder has none that this graft can read."""
    folder = project / _FOLDER
    if not (folder / _TABLES).exists():
        raise InvalidInputError(f"{folder}: no rows to train a teacher on; write the pair with 'graft pair make'")
    try:
        design = TeacherDesign.model_validate_json((folder / _DESIGN).read_text(encoding="utf-8"))
    except ValidationError:
        raise InvalidInputError(f"{folder / _DESIGN}: written by another graft; make the pair again") from None
    with np.load(folder / _TABLES, allow_pickle=False) as tables:
        return Source(design, dict(tables))


def count_before(user_N: NDArray[np.integer]) -> NDArray[np.float32]:
    """How many rows of its user came before each row, [N]."""
    count_N: NDArray[np.float32] = pd.Series(user_N).groupby(user_N).cumcount().to_numpy(np.float32)
    return count_N


def mean_before(user_N: NDArray[np.integer], value_N: NDArray[Any], first: float) -> NDArray[np.float32]:
    """The mean value of its user's rows before each row, [N]; `first` where there are none."""
    value_N = value_N.astype(np.float64)
    total_N = pd.Series(value_N).groupby(user_N).cumsum().to_numpy() - value_N
    count_N = count_before(user_N)
    return np.where(count_N > 0, total_N / np.maximum(count_N, 1), first).astype(np.float32)
