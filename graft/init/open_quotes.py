"""Finds quotes that are not closed: then the reader of CSV takes the rows after them for one field."""

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from runtime.errors import InvalidInputError

_FEWEST = 3
"""Whole lines within fields that look like rows; a text of several lines may have one by chance."""


class OpenQuotes:
    """Counts the whole lines within fields of one file, and how many of them have as many delimiters as a row."""

    def __init__(self, delimiter: str, fields: int) -> None:
        self._delimiter, self._fields = delimiter, fields
        self._lines = self._like_rows = 0
        self._first = ""

    def add(self, batch: pa.RecordBatch) -> None:
        """Take the texts of another batch."""
        for name, values in zip(batch.schema.names, batch.columns, strict=True):
            for text in values.filter(pc.match_substring(values, "\n")).to_pylist():
                self._add(f"{name!r}", text)

    def add_text(self, text: str) -> None:
        """Take the text of a record that has another number of fields than the header."""
        self._add("a line", text)

    def check(self, where: str) -> int:
        """How many of these lines may be rows: 0 if most do not look so. InvalidInputError where it is no chance."""
        if 2 * self._like_rows <= self._lines:
            return 0
        if self._like_rows >= _FEWEST:
            raise InvalidInputError(
                f"{where}: {self._like_rows:,} rows lie within quotes that are not closed, the first in {self._first}; "
                "write a quote within a field twice and the field in quotes, or remove the quotes, such as with: "
                "tr -d '\"'"
            )
        return self._like_rows

    def _add(self, place: str, text: str) -> None:
        for line in _whole_lines(text):
            self._lines += 1
            if line.count(self._delimiter) == self._fields - 1:
                self._like_rows += 1
                self._first = self._first or f"{place}: {text[:40].splitlines()[0]!r}"


def _whole_lines(text: str) -> Iterator[str]:
    yield from text.splitlines()[1:-1]
