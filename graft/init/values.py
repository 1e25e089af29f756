"""Turns a column, of whatever Arrow type, into ids, times, numbers or yes and no. What does not fit becomes null."""

import re
from datetime import UTC, datetime
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

YES_WORDS = ("1", "1.0", "true", "yes", "y", "t", "on")
NO_WORDS = ("0", "0.0", "false", "no", "n", "f", "off")
INTEGER_TEXT = r"^-?(0|[1-9][0-9]{0,17})(\.0+)?$"
"""Also 17.0, as pandas writes an integer column with gaps. 007 is a text."""

NUMBER_TEXT = r"^[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?$|^[Nn][Aa][Nn]$"
TIME_TEXT = r"^\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}([.,]\d+)?)?)? ?(?P<zone>Z|z|UTC|[+-]\d{2}(:?\d{2})?)?$"

LARGEST_FLOAT32 = 3.4e38
"""Of a feature and of context: a larger number has no float32."""

TimeUnit = Literal["s", "ms", "us", "ns"]
UNITS: dict[TimeUnit, float] = {"s": 1e3, "ms": 1.0, "us": 1e-3, "ns": 1e-6}
"""The unit of a number of time -> milliseconds in one."""

FIRST_MS = datetime(1990, 1, 1, tzinfo=UTC).timestamp() * 1000
LAST_MS = datetime(2100, 1, 1, tzinfo=UTC).timestamp() * 1000


def texts(values: Any) -> Any:
    """The values as texts; of a list, its Python form; of bytes that are no UTF-8, such as a UUID's, hex digits."""
    kind = values.type
    if pa.types.is_string(kind):
        return values
    if pa.types.is_dictionary(kind):
        return texts(values.dictionary_decode())
    if pa.types.is_boolean(kind):
        return pc.if_else(values, "true", "false")
    if pa.types.is_floating(kind) or pa.types.is_fixed_size_binary(kind):
        return pa.array([None if v is None else _number_text(v) for v in values.to_pylist()], pa.string())
    try:
        return values.cast(pa.string())
    except pa.ArrowException:
        return pa.array([None if v is None else _odd_text(v) for v in values.to_pylist()], pa.string())


def ids(values: Any, *, whole: bool) -> Any:
    """Ids as int64 or as texts; an empty text is null."""
    if whole:
        if pa.types.is_integer(values.type):
            return values.cast(pa.int64(), safe=False)
        if pa.types.is_decimal(values.type):
            return pc.round(values).cast(pa.int64())
        if pa.types.is_floating(values.type):
            return _to_int64(values)
        text = texts(values)
        fits = pc.match_substring_regex(text, INTEGER_TEXT)
        clean = pc.replace_substring_regex(pc.if_else(fits, text, None), r"\.0+$", "")
        return clean.cast(pa.int64())
    text = texts(values)
    return pc.if_else(pc.equal(pc.utf8_length(text), 0), None, text)


def large(values: Any) -> Any:
    """Texts with 64-bit offsets: all rows of a long log in one column are above 2 GiB."""
    return values.cast(pa.large_string()) if pa.types.is_string(values.type) else values


def numbers(values: Any, largest: float = LARGEST_FLOAT32) -> Any:
    """Float64 numbers of a size up to `largest`; yes and no are 1 and 0."""
    kind = values.type
    if (
        pa.types.is_boolean(kind)
        or pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_decimal(kind)
    ):
        found = values.cast(pa.float64(), safe=False)
    else:
        text = pc.utf8_trim_whitespace(texts(values))
        found = pc.if_else(pc.match_substring_regex(text, NUMBER_TEXT), text, None).cast(pa.float64())
        found = pc.coalesce(found, flags(text))
    return pc.if_else(pc.less_equal(pc.abs(found), largest), found, None)  # not NaN


def flags(values: Any) -> Any:
    """Yes and no, in whatever words, as 1.0 and 0.0."""
    if pa.types.is_boolean(values.type):
        return values.cast(pa.float64())
    words = pc.utf8_lower(pc.utf8_trim_whitespace(texts(values)))
    yes, no = (pc.is_in(words, value_set=pa.array(known)) for known in (YES_WORDS, NO_WORDS))
    one, zero, nothing = (pa.scalar(value, pa.float64()) for value in (1.0, 0.0, None))
    return pc.if_else(yes, one, pc.if_else(no, zero, nothing))


def times_ms(values: Any, unit: TimeUnit | None) -> Any:
    """Milliseconds since 1970 as int64. `unit` is that of numbers; None: times, or texts of ISO 8601 (no zone: UTC)."""
    kind = values.type
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return values.cast(pa.timestamp("ms", getattr(kind, "tz", None)), safe=False).cast(pa.int64())
    if unit is not None:
        return _to_int64(pc.round(pc.multiply(numbers(values), UNITS[unit])))
    return _iso_ms(texts(values))


def codes_of(column: pa.ChunkedArray) -> NDArray[np.int64]:
    """Each value as a number from 0 on; a null is -1."""
    found = column.dictionary_encode().combine_chunks()
    indices = found.indices if isinstance(found, pa.DictionaryArray) else found.chunk(0).indices
    codes: NDArray[np.int64] = pc.fill_null(indices, -1).to_numpy().astype(np.int64)
    return codes


def _iso_ms(text: Any) -> Any:
    for kind in (pa.timestamp("us"), pa.timestamp("us", tz="UTC")):
        try:
            return text.cast(kind).cast(pa.timestamp("ms", kind.tz), safe=False).cast(pa.int64())
        except pa.ArrowException:
            continue
    return pa.array([None if value is None else _one_iso_ms(value) for value in text.to_pylist()], pa.int64())


def _one_iso_ms(text: str) -> int | None:
    plain = re.sub(r" ?(UTC|z)$", "Z", text.strip()).replace(",", ".")
    plain = re.sub(r"(\.\d{6})\d+", r"\1", plain)
    try:
        moment = datetime.fromisoformat(re.sub(r" (?=[+-]\d{2}(:?\d{2})?$|Z$)", "", plain))
    except ValueError:
        return None
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


def _to_int64(values: Any) -> Any:
    """Whole numbers as int64; null for NaN and what is no whole number or beyond what a double holds exactly."""
    values = values.cast(pa.float64())  # there is no floor of float16
    fits = pc.and_(pc.equal(values, pc.floor(values)), pc.less(pc.abs(values), 2.0**53))
    return pc.if_else(fits, values, None).cast(pa.int64(), safe=False)


def _number_text(value: float | bytes) -> str:
    """17.0 is 17, as in an integer column with gaps."""
    if isinstance(value, bytes):
        return value.hex()
    return str(int(value)) if value.is_integer() and abs(value) < 2.0**53 else repr(value)


def _odd_text(value: Any) -> str:
    if not isinstance(value, bytes):
        return str(value)
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.hex()
