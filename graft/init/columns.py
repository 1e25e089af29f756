"""What the columns of a table hold: their kind, examples, ranges, over all rows and with bounded memory."""

import math
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
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


Kind = Literal["empty", "int", "float", "bool", "time", "text", "list"]

MOST_VALUES = 1_000
"""Distinct values that are counted; beyond it a column has "many"."""

_SAMPLES = 3
_NEARLY_ALL = 0.9  # of the values of a column of times; the rest cannot be read
_INT64 = 2**63


@dataclass
class Column:
    """One column over all rows. `values`: its distinct values as text, at most MOST_VALUES + 1 of them.

    `low`, `high`: of numbers, and of native times in ms since 1970. `widths`: the lengths of its lists. `times`: how
    many values are times, as a text of ISO 8601 (iso) or as a number of a unit.
    """

    name: str
    rows: int
    nulls: int
    low: float = math.inf
    high: float = -math.inf
    longest: int = 0
    samples: list[str] = field(default_factory=list)
    values: dict[str, None] = field(default_factory=dict)
    widths: set[int] = field(default_factory=set)
    times: Counter[str] = field(default_factory=Counter)
    may_be: set[Kind] = field(default_factory=lambda: {"int", "float", "bool", "time", "text", "list"})

    @property
    def kind(self) -> Kind:
        """The narrowest kind that all its values have; 0 and 1 are integers."""
        if self.nulls == self.rows:
            return "empty"
        kinds: tuple[Kind, ...] = ("list", "int", "float", "bool", "time", "text")
        found = next(kind for kind in kinds if kind in self.may_be)
        return "time" if found == "text" and self._are_times("iso") else found

    @property
    def time_unit(self) -> TimeUnit | None:
        """The unit in which nearly all its numbers are times between 1990 and 2100."""
        is_number = self.kind in ("int", "float")
        return next((unit for unit in UNITS if is_number and self._are_times(unit)), None)

    @property
    def filled(self) -> float:
        """The share of rows with a value."""
        return 1 - self.nulls / self.rows if self.rows else 0.0

    @property
    def is_many(self) -> bool:
        """Whether it has more distinct values than are counted."""
        return len(self.values) > MOST_VALUES

    @property
    def is_binary(self) -> bool:
        """Whether its values are yes and no, in whatever words, or one of them."""
        words = {value.strip().lower() for value in self.values}
        return bool(words) and words <= {*YES_WORDS, *NO_WORDS}

    def _are_times(self, form: str) -> bool:
        return self.times[form] > 0 and self.times[form] >= _NEARLY_ALL * (self.rows - self.nulls)

    def add(self, values: Any) -> None:
        """Take another batch of the column."""
        self.rows += len(values)
        present = _decoded(values).drop_null()
        if pa.types.is_floating(present.type):
            present = present.filter(pc.is_finite(present))
        self.nulls += len(values) - len(present)
        if len(present):
            self._narrow(present)
            self._remember(present)

    def _narrow(self, present: Any) -> None:
        """Remove the kinds that these values do not have."""
        kind = present.type
        if pa.types.is_boolean(kind):
            self.may_be &= {"bool", "text"}
        elif pa.types.is_timestamp(kind) or pa.types.is_date(kind):
            self.may_be &= {"time", "text"}
            self._range(present.cast(pa.timestamp("ms", getattr(kind, "tz", None)), safe=False).cast(pa.int64()))
        elif pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
            self._lists(present)
        elif pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
            self._numbers(present.cast(pa.float64(), safe=False))
        else:
            self._texts(texts(present))

    def _numbers(self, numbers: Any) -> None:
        whole = pc.all(pc.equal(numbers, pc.floor(numbers))).as_py()
        self._number_times(numbers)
        fits = whole and self.low >= -_INT64 and self.high < _INT64
        self.may_be &= {"int", "float", "text"} if fits else {"float", "text"}

    def _texts(self, present: Any) -> None:
        def all_match(pattern: str) -> bool:
            return bool(pc.all(pc.match_substring_regex(present, pattern)).as_py())

        kinds: set[Kind] = {"text"}
        self.longest = max(self.longest, pc.max(pc.utf8_length(present)).as_py())
        if {"int", "float"} & self.may_be and all_match(NUMBER_TEXT):
            kinds.add("float")
            if all_match(INTEGER_TEXT):
                kinds.add("int")
            numbers = present.cast(pa.float64())
            self._number_times(numbers.filter(pc.is_finite(numbers)))
        self.times["iso"] += pc.sum(pc.match_substring_regex(present, TIME_TEXT)).as_py()
        if "bool" in self.may_be and not self.is_many:
            words = pc.unique(pc.utf8_lower(pc.utf8_trim_whitespace(present))).to_pylist()
            if set(words) <= {*YES_WORDS, *NO_WORDS}:
                kinds.add("bool")
        self.may_be &= kinds

    def _lists(self, present: Any) -> None:
        numeric = pa.types.is_integer(present.type.value_type) or pa.types.is_floating(present.type.value_type)
        self.may_be &= {"list", "text"} if numeric else {"text"}
        if len(self.widths) <= MOST_VALUES:
            self.widths |= set(pc.unique(pc.list_value_length(present)).to_pylist())

    def _number_times(self, numbers: Any) -> None:
        self._range(numbers)
        for unit, in_ms in UNITS.items():
            is_time = pc.and_(pc.greater_equal(numbers, FIRST_MS / in_ms), pc.less(numbers, LAST_MS / in_ms))
            self.times[unit] += pc.sum(is_time).as_py() or 0

    def _range(self, numbers: Any) -> None:
        found = pc.min_max(numbers).as_py()
        if found["min"] is not None:
            self.low, self.high = min(self.low, found["min"]), max(self.high, found["max"])

    def _remember(self, present: Any) -> None:
        if self.is_many:
            return
        is_nested = pa.types.is_nested(present.type)  # pyarrow does not tell such values apart
        distinct = present[:_SAMPLES] if is_nested else pc.unique(present)[: MOST_VALUES + 1]
        for value in texts(distinct).to_pylist():
            if len(self.samples) < _SAMPLES and value not in self.samples:
                self.samples.append(value)
            if not self.is_many:
                self.values[value] = None


def columns_of(batches: Iterable[pa.RecordBatch]) -> dict[str, Column]:
    """The columns of a table by name, in their order; a row of a file without a column counts as null there."""
    columns: dict[str, Column] = {}
    rows = 0
    for batch in batches:
        for name, values in zip(batch.schema.names, batch.columns, strict=True):
            known = columns.setdefault(name, Column(name, rows, rows))
            known.add(values)
        rows += len(batch)
        for known in columns.values():
            known.nulls += rows - known.rows
            known.rows = rows
    return columns


def _decoded(values: Any) -> Any:
    return values.dictionary_decode() if pa.types.is_dictionary(values.type) else values
