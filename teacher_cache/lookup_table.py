"""The tables of `lookup` inputs: inline in graft.toml, or a JSON object in a file of the project folder."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from teacher_cache.config import LookupInput, Scalar

_SHOWN_VALUES = 3


class LookupTableError(ValueError):
    """A table that cannot be used; the text says why, without the key in graft.toml."""


def read_table(config: LookupInput, folder: Path) -> Mapping[str, Scalar]:
    """Value by key. LookupTableError: both or none given, or the file is outside, missing or not such an object."""
    if (config.table is None) == (config.file is None):
        given = "neither" if config.table is None else "both"
        raise LookupTableError(f"needs a table or a file, got {given}; allowed is one of the two")
    if config.file is None:
        return config.table or {}
    return _read_file(config.file, folder)


def _read_file(file: Path, folder: Path) -> Mapping[str, Scalar]:
    path = (folder / file).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise LookupTableError(f"file {str(file)!r} lies outside the project folder; copy it into the folder")
    try:
        table: Any = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise LookupTableError(f"file {str(file)!r} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise LookupTableError(f"file {str(file)!r} is not JSON: {error}") from None
    if not isinstance(table, dict):
        raise LookupTableError(f"file {str(file)!r} holds a JSON {type(table).__name__}, allowed is an object")
    bad = [f"{key!r}: {value!r}" for key, value in table.items() if not _is_scalar(value)]
    if bad:
        raise LookupTableError(
            f"file {str(file)!r} has values that are no number or text: {', '.join(bad[:_SHOWN_VALUES])}"
        )
    return table


def _is_scalar(value: Any) -> bool:
    return isinstance(value, int | float | str) and not isinstance(value, bool)
