"""What the columns of a table hold: their kind, examples, ranges, over all rows and with bounded memory."""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from graft.init.values import (
    FIRST_MS,
    INTEGER_TEXT,
    LAST_MS,
    NO_WORDS,
    NUMBER_TEXT,
    TIME_TEXT,
    UNITS,
    YES_WORDS,
    TimeUnit,
    texts,
)

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
