"""A label as an expression over one column."""

import pyarrow as pa
import pytest

from graft.init.columns import columns_of
from graft.init.roles import parse_label
from runtime.errors import InvalidInputError

BATCH = pa.RecordBatch.from_pydict(
    {
        "stars": ["5", "3.5", None, "0"],
        "the event": ["order", "view", "order ", None],
        "done": [True, False, None, True],
        "a=b": [1, 0, 1, 0],
        "note": [None, None, None, None],
    }
)
COLUMNS = columns_of([BATCH])


@pytest.mark.parametrize(
    ("text", "kind", "values"),
    [
        ("rating = stars", "regression", [5.0, 3.5, None, 0.0]),
        ("liked=stars>=3.5", "binary", [1.0, 1.0, None, 0.0]),
        ("bad = stars < 3.5", "binary", [0.0, 0.0, None, 1.0]),
        ("best = stars == 5", "binary", [1.0, 0.0, None, 0.0]),
        ("bought = the event == 'order'", "binary", [1.0, 0.0, 0.0, None]),
        ('other = "the event" != "order"', "binary", [0.0, 1.0, 1.0, None]),
        ("done = done", "binary", [1.0, 0.0, None, 1.0]),
        ("odd = a=b", "binary", [1.0, 0.0, 1.0, 0.0]),
        ("shown = 1", "binary", [1.0, 1.0, 1.0, 1.0]),
    ],
)
def test_an_expression_gives_the_label_of_each_row(text, kind, values):
    label = parse_label(text, COLUMNS)
    assert label.kind == kind
    assert label.values(BATCH).to_pylist() == values


def test_what_a_message_advises_for_a_column_of_texts_is_a_label() -> None:
    with pytest.raises(InvalidInputError, match="compare them, such as: ") as refused:
        parse_label("bought = the event", COLUMNS)
    advised = str(refused.value).rpartition("such as: ")[2]
    assert parse_label(advised, COLUMNS).values(BATCH).to_pylist() == [1.0, 0.0, 0.0, None]


def test_an_empty_column_is_no_label() -> None:
    with pytest.raises(InvalidInputError, match="'done = note': the column is empty; name another one"):
        parse_label("done = note", COLUMNS)
