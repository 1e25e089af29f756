"""Opens Parquet files so that what was read does not stay in memory."""

from pathlib import Path
from typing import TypeAlias

import pyarrow.parquet as pq

_BUFFER_BYTES = 1 << 20  # of each column; without it Arrow reads a row group's whole column at once

ParquetFile: TypeAlias = pq.ParquetFile  # noqa: TID251 - open_parquet is what the rule names


def open_parquet(path: Path, *, check_pages: bool = False) -> ParquetFile:
    """The file; its `iter_batches` keeps a few MiB of a long file in memory. OSError, pa.ArrowException.

    By default Arrow keeps all bytes that it has read until the file is closed (`pre_buffer`, apache/arrow#39808).
    `check_pages`: compare each page with its checksum.
    """
    return ParquetFile(path, pre_buffer=False, buffer_size=_BUFFER_BYTES, page_checksum_verification=check_pages)
