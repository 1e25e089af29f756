"""The tables of `lookup` and `vocabulary` inputs: inline in graft.toml, or in a file of the project folder."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from runtime.folder import lies_within
from teacher_cache.config import LookupInput, Scalar, VocabularyInput

_SHOWN_VALUES = 3


class LookupTableError(ValueError):
    """A table that cannot be used; the text says why, without the key in graft.toml."""


def read_table(config: LookupInput | VocabularyInput, folder: Path) -> Mapping[str, Scalar]:
    """Value by key. LookupTableError: both or none given, or the file is outside, missing or not of its form."""
    if isinstance(config, VocabularyInput):
        return _read_vocabulary(config, folder)
    if (config.table is None) == (config.file is None):
        given = "neither" if config.table is None else "both"
        raise LookupTableError(f"needs a table or a file, got {given}; allowed is one of the two")
    if config.file is None:
        return config.table or {}
    return _read_file(config.file, folder)


def _read_vocabulary(config: VocabularyInput, folder: Path) -> Mapping[str, Scalar]:
    text = _text_of(config.file, folder).removeprefix("\ufeff")
    if not text:
        raise LookupTableError(f"file {str(config.file)!r} is empty")
    lines = text.removesuffix("\n").split("\n")
    values = [line.removesuffix("\r") for line in lines]
    table = {value: config.first + number for number, value in enumerate(values)}
    if len(table) < len(values):
        _refuse_twice(config.file, "line", values)
    return table


def _refuse_twice(file: Path, what: str, given: Iterable[str]) -> NoReturn:
    text, count = Counter(given).most_common(1)[0]
    raise LookupTableError(f"file {str(file)!r} has the {what} {text!r} {count} times; each may stand once")


def _text_of(file: Path, folder: Path) -> str:
    path = folder / file
    if not lies_within(path, folder):
        raise LookupTableError(f"file {str(file)!r} lies outside the project folder; copy it into the folder")
    try:
        return path.read_bytes().decode("utf-8")
    except OSError as error:
        raise LookupTableError(f"file {str(file)!r} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise LookupTableError(f"file {str(file)!r} is not UTF-8 from byte {error.start} on") from None


def _read_file(file: Path, folder: Path) -> Mapping[str, Scalar]:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(found := dict(pairs)) < len(pairs):
            _refuse_twice(file, "key", [key for key, _ in pairs])
        return found

    try:
        table: Any = json.loads(_text_of(file, folder), object_pairs_hook=once)
    except (ValueError, RecursionError) as error:
        if isinstance(error, LookupTableError):
            raise
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
