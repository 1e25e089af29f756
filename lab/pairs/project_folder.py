"""Writes the files of a project folder: the template, Feast's batch tables, the event file, and `source/`.

`source/` is what the pair's teacher is trained on, rows of the source domain alone. Shapes: N rows in time order.
"""

import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import ValidationError

from graft.fit.design import Source, TeacherDesign
from runtime.errors import InvalidInputError

EVENTS = "events.jsonl"
TRUTH = "truth.json"
"""Of a simulated pair: the AUC of the true probabilities, by task."""
TABLES = Path("feature_repo") / "data"

_TIME = pa.timestamp("us", tz="UTC")

EventLine = dict[str, Any]


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A folder whose content moves to `folder` when the block ends, and is removed after an error.

    InvalidInputError when `folder` holds something already, which is never overwritten.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InvalidInputError(f"{folder}: not empty; name a new folder, or empty this one first")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".arriving-") as arriving:
        yield Path(arriving)
        for child in Path(arriving).iterdir():
            child.rename(folder / child.name)


def copy_template(name: str, folder: Path) -> None:
    """The files of that pair's template, as they are."""
    with as_file(files("lab.pairs") / "templates" / name) as template:
        shutil.copytree(template, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))


def impression_line(
    impression_id: str, user_id: int | str, item_id: int | str, event_time_ms: int, context: Mapping[str, Any]
) -> EventLine:
    """An item shown to a user, as a line of the event file."""
    return {
        "type": "impression",
        "impression_id": impression_id,
        "user_id": user_id,
        "item_id": item_id,
        "event_time_ms": event_time_ms,
        "context": dict(context),
    }


def feedback_line(impression_id: str, task: str, value: float, event_time_ms: int) -> EventLine:
    """A user's answer to an impression, as a line of the event file."""
    return {
        "type": "feedback",
        "impression_id": impression_id,
        "task": task,
        "value": value,
        "event_time_ms": event_time_ms,
    }


def write_events(folder: Path, lines: Iterable[EventLine]) -> None:
    """The event file, in time order; lines of the same millisecond keep the order they come in."""
    ordered = sorted(lines, key=lambda line: line["event_time_ms"])
    with (folder / EVENTS).open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n" for line in ordered)


def write_table(folder: Path, name: str, columns: Mapping[str, Any], as_of: datetime) -> None:
    """One of Feast's batch tables: a row per entity, all of them known since `as_of` (aware)."""
    table = pa.table(dict(columns))
    table = table.append_column("event_timestamp", pa.array([as_of] * len(table), _TIME))
    (folder / TABLES).mkdir(parents=True, exist_ok=True)
    pq.write_table(table, folder / TABLES / f"{name}.parquet")


def write_json(folder: Path, name: str, content: Mapping[str, Any]) -> None:
    """A JSON file, such as a lookup table of the domain map."""
    text = json.dumps(content, ensure_ascii=False, indent=0, sort_keys=True)
    (folder / name).write_text(text + "\n", encoding="utf-8")


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
