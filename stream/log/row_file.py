"""Row files: Parquet with a user, an item and, where it matters, a context in each row; nobody was shown them."""

import logging
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from runtime.errors import InvalidInputError
from runtime.folder import open_parquet
from stream.events import Impression
from stream.log.request_columns import Share

if TYPE_CHECKING:
    from pyarrow.parquet import ParquetFile  # noqa: TID251 - its annotation alone

_log = logging.getLogger(__name__)
_IDS = ("user_id", "item_id")


def rows_of(path: Path, context_names: Collection[str]) -> Iterator[Impression]:
    """The rows of a file in their order, as impressions of the time 0 named ``row-0``, ``row-1``, ...

    Columns are user_id, item_id, and any of `context_names`; a missing value of these is left out of the context. Rows
    that are no valid ids or context are counted in one warning at the end. InvalidInputError for another file.
    """
    return (row for _, row in share_of_rows(path, context_names, Share(0, 1)))


def share_of_rows(
    path: Path, context_names: Collection[str], share: Share, start: int = 0
) -> Iterator[tuple[int, Impression]]:
    """As `rows_of`, but of a share's users and from the row number `start` on; each with its number."""
    try:
        with open_parquet(path) as parquet:
            _check_columns(path, parquet.schema_arrow.names, context_names)
            yield from _rows(path, parquet, share, start)
    except (pa.ArrowException, OSError) as error:
        raise InvalidInputError(f"{path}: no Parquet file, or damaged: {error}") from error


def columns_of(path: Path) -> list[str]:
    """The names of a file's columns; InvalidInputError for another file."""
    try:
        names: list[str] = pq.read_schema(path).names
    except (pa.ArrowException, OSError) as error:
        raise InvalidInputError(f"{path}: no Parquet file, or damaged: {error}") from error
    return names


def count_rows(path: Path) -> int:
    """All rows of a file, valid or not; InvalidInputError for another file."""
    try:
        with open_parquet(path) as parquet:
            return int(parquet.metadata.num_rows)
    except (pa.ArrowException, OSError) as error:
        raise InvalidInputError(f"{path}: no Parquet file, or damaged: {error}") from error


def _rows(path: Path, parquet: "ParquetFile", share: Share, start: int) -> Iterator[tuple[int, Impression]]:
    skipped = first = 0
    for batch in parquet.iter_batches(batch_size=1_000):
        numbers = np.arange(first, first + batch.num_rows)
        first += batch.num_rows
        wanted = numbers >= start
        if share.of > 1:
            wanted &= share.has(batch["user_id"])
        for number, row in zip(numbers[wanted].tolist(), batch.filter(pa.array(wanted)).to_pylist(), strict=True):
            user_id, item_id = (row.pop(name) for name in _IDS)
            context = {name: value for name, value in row.items() if value is not None}
            told = {"user_id": user_id, "item_id": item_id, "event_time_ms": 0, "context": context}
            try:
                impression = Impression.model_validate({"impression_id": f"row-{number}", **told})
            except ValidationError:
                skipped += 1
                continue
            yield number, impression
    if skipped:
        _log.warning("%s: %d rows have no valid ids or context; they were left out", path, skipped)


def _check_columns(path: Path, names: list[str], context_names: Collection[str]) -> None:
    missing = [name for name in _IDS if name not in names]
    unknown = [name for name in names if name not in (*_IDS, *context_names)]
    if missing or unknown:
        allowed = ", ".join(sorted(context_names)) or "none: the project has no [features.context]"
        raise InvalidInputError(
            f"{path}: has the columns {', '.join(names)}; needed are user_id and item_id, allowed contexts {allowed}"
        )
