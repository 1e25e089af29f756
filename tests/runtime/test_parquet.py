"""Parquet files that are longer than what may be in memory."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from runtime.parquet import open_parquet

_ROWS = 4_000_000


@pytest.fixture(scope="module")
def numbers() -> pa.Table:
    return pa.table({"number": np.random.default_rng(1).integers(1 << 60, size=_ROWS)})  # 31 MiB, incompressible


@pytest.mark.parametrize("row_group_size", [_ROWS // 40, _ROWS])
def test_of_a_file_that_is_read_by_batches_a_small_part_is_in_memory(tmp_path, numbers, row_group_size):
    path = tmp_path / "numbers.parquet"
    pq.write_table(numbers, path, row_group_size=row_group_size, use_dictionary=False)
    before, most, rows = pa.total_allocated_bytes(), 0, 0
    with open_parquet(path) as file:
        for batch in file.iter_batches(batch_size=10_000):
            rows += batch.num_rows
            most = max(most, pa.total_allocated_bytes() - before)
    assert rows == _ROWS
    assert most < path.stat().st_size / 4
