"""What it costs to keep pushed aggregates for Feast's offline store: the push log against Feast's own write.

``python benchmarks/push_log.py`` prints milliseconds for each push of 100 rows, and the time of a collection.
"""

import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from features.aggregates import Aggregates
from features.collect import collect
from features.config import AggregateConfig
from features.push_log import PushedTable, PushLog, segments

ITEMS = AggregateConfig(
    entity="item", push_source="items", columns={"shown": "count", "clicks": "mean(click)", "dwell": "mean(dwell)"}
)
COLUMNS = dict.fromkeys(ITEMS.columns, pa.float32())
ENTITIES, ROWS, PUSHES = 50_000, 100, 2_000


def main() -> None:
    """Measure and print."""
    with TemporaryDirectory() as name:
        table = PushedTable(Path(name) / "items.parquet", "item_id", "int", COLUMNS, "event_timestamp")
        log = PushLog({"items": table}, [ITEMS])
        log.begin("benchmark")
        aggregates = Aggregates([ITEMS])
        random = np.random.default_rng(0)
        milliseconds = [_push(log, aggregates, random.integers(0, ENTITIES, ROWS).tolist(), n) for n in range(PUSHES)]
        log.close()
        size = sum(path.stat().st_size for path in segments(table.log_folder))
        print(f"push log: p50 {np.median(milliseconds):.2f} ms, p99 {np.percentile(milliseconds, 99):.2f} ms a push")
        print(f"push log: {size / PUSHES / ROWS:.0f} bytes a row")
        seconds = timed(lambda: collect(table))
        rows = pq.read_metadata(table.path).num_rows
        print(
            f"collect: {seconds:.2f} s for {PUSHES * ROWS:,} rows; {table.path.stat().st_size / rows:.0f} bytes a row"
        )
        for size in (10_000, 100_000, 1_000_000):
            print(f"Feast's offline_write_batch at {size:,} rows: {1000 * _by_feast(table.path, size):.1f} ms a push")


def _push(log: PushLog, aggregates: Aggregates, ids: list[int], number: int) -> float:
    for one in ids:
        aggregates.add("item", one, {"click": 1.0, "dwell": 2.0}, number)
    return 1000 * timed(lambda: log.append(aggregates, {"item": sorted(set(ids))}, number))


def _by_feast(path: Path, size: int) -> float:
    """What `DaskOfflineStore.offline_write_batch` (Feast 0.67) does: read the file, add the rows, write it anew."""
    copy = path.with_name("feast.parquet")
    whole = pq.read_table(path)
    pq.write_table(pa.concat_tables([whole] * (1 + size // len(whole))).slice(0, size), copy)
    batch = whole.slice(0, ROWS)
    found = [timed(lambda: pq.write_table(pa.concat_tables([batch, pq.read_table(copy)]), copy)) for _ in range(5)]
    return float(np.median(found))


def timed(work: Callable[[], object]) -> float:
    """Its seconds."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
