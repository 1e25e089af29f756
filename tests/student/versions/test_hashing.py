"""Every 64-bit hash has a row, and a missing value has its own."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from student.versions.served_tensors import embedding_rows


@given(st.lists(st.integers(1, 2**64 - 1), min_size=1), st.integers(2, 1 << 20))
def test_a_hash_has_one_row_of_the_table_that_is_not_the_missing_one(hashes: list[int], table_rows: int) -> None:
    rows = embedding_rows(np.array([hashes], np.uint64), table_rows)
    assert rows.tolist() == [[1 + value % (table_rows - 1) for value in hashes]]


def test_a_missing_value_has_row_0() -> None:
    assert embedding_rows(np.array([[0, 7]], np.uint64), 8).tolist() == [[0, 1]]
