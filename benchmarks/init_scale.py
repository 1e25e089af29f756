"""Memory and seconds of `graft init`, `look` and `dev` on made-up events in a CSV; each process' peak resident memory.

python benchmarks/init_scale.py [--events 10000000] [--dev-minutes 15] [--own-users] [--work DIR]. With 10 million
events `dev` would take hours at the rate of one machine: it runs for some minutes, and its memory is told as the events
go on. With `--own-users` each event is of another user, and only `init` and `look` run: of the log, and with a table of
the users.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

_ROWS = 1_000_000
_FIRST_S = 1_600_000_000


def write_log(path: Path, events: int, users: int | None, items: int) -> None:
    """Events in time order, ids as texts, popular items more often; a click in eight, a rating with each click.

    `users` None: each event is of another user, whose id is a text too.
    """
    draw = np.random.default_rng(1)
    own = draw.permutation(events) if users is None else None
    writer = None
    for start in range(0, events, _ROWS):
        rows = min(_ROWS, events - start)
        clicked = draw.random(rows) < 0.125
        item = (items * draw.random(rows) ** 3).astype(np.int64)
        table = pa.table(
            {
                "user_id": pa.array(
                    _ids("user", own[start : start + rows]) if own is not None else draw.integers(users, size=rows)
                ),
                "item_id": pa.array(_ids("item", item)),
                "timestamp": pa.array(_FIRST_S + (start + np.arange(rows)) * 4),
                "device": pa.array(np.array(["phone", "tv", "web"])[draw.integers(3, size=rows)]),
                "clicked": pa.array(clicked.astype(np.int8)),
                "rating": pa.array(np.where(clicked, draw.integers(1, 6, size=rows), 0), mask=~clicked),
            }
        )
        writer = writer or pyarrow.csv.CSVWriter(path, table.schema)
        writer.write_table(table)
    assert writer is not None
    writer.close()


def write_users(path: Path, users: int) -> None:
    """Each user's age and country, in the order of their ids."""
    draw = np.random.default_rng(4)
    countries = np.array(["fr", "de", "us", "in"])[draw.integers(4, size=users)]
    columns = {"user_id": _ids("user", np.arange(users)), "age": draw.integers(16, 80, size=users)}
    pyarrow.csv.write_csv(pa.table({**columns, "country": countries}), path)


def _ids(kind: str, numbers: Any) -> Any:
    return np.char.add(f"{kind}-", numbers.astype(str))


def write_days(folder: Path, days: int, rows_each: int) -> None:
    """A Parquet file a day, and all of them in one."""
    (folder / "days").mkdir()
    draw = np.random.default_rng(2)
    tables = []
    for day in range(days):
        times = _FIRST_S + 86_400 * day + np.sort(draw.integers(86_400, size=rows_each))
        columns = {"user_id": draw.integers(2_000, size=rows_each), "item_id": draw.integers(500, size=rows_each)}
        tables.append(pa.table({**columns, "timestamp": times, "clicked": draw.integers(2, size=rows_each)}))
        pq.write_table(tables[-1], folder / "days" / f"day-{day:05d}.parquet")
    pq.write_table(pa.concat_tables(tables), folder / "one.parquet")


def measured(*arguments: str) -> dict[str, Any]:
    """Run a graft command; its seconds, those of a processor, and the peak of its resident memory in MiB."""
    began = time.monotonic()
    print(f"$ graft {' '.join(arguments)}", file=sys.stderr, flush=True)
    process = subprocess.Popen([sys.executable, "-m", "graft", *arguments], stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"graft {' '.join(arguments)} ended with code {process.returncode}")
    cpu = used.ru_utime + used.ru_stime
    seconds = {"seconds": round(time.monotonic() - began, 1), "cpu_seconds": round(cpu, 1)}
    return {**seconds, "peak_mib": round(used.ru_maxrss / 1024)}


def developed(folder: Path, minutes: int) -> dict[str, Any]:
    """Run `graft dev --speed max`; each minute the last line that it says and each process' peak up to then, in MiB."""
    said = folder.parent / "dev.txt"
    found: dict[str, Any] = {}
    argv = [sys.executable, "-m", "graft", "dev", str(folder), "--speed", "max"]
    print(f"$ graft dev {folder} --speed max", file=sys.stderr, flush=True)
    with said.open("wb") as file, subprocess.Popen(argv, stdout=file, stderr=file) as dev:
        for minute in range(1, minutes + 1):
            time.sleep(60)
            if dev.poll() is not None:
                raise SystemExit(f"graft dev ended with code {dev.returncode}: {said.read_text()[-2_000:]}")
            processes = [psutil.Process(dev.pid), *psutil.Process(dev.pid).children(recursive=True)]
            peaks = {_name(one.cmdline()): round(_peak_mib(one.pid)) for one in processes}
            found[f"minute {minute}"] = {"says": said.read_text().splitlines()[-1], "peak_mib": peaks}
        dev.send_signal(signal.SIGINT)
    return found


def _peak_mib(pid: int) -> float:
    """The most resident memory of a process so far; 0 of one that has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(float(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:"))


def _name(command: list[str]) -> str:
    """The graft command of a process, else its program."""
    if "graft" in command:
        words = command[command.index("graft") + 1 :]
        return " ".join(words[:2]) if words[:1] in (["stream"], ["student"], ["teacher"], ["features"]) else words[0]
    return Path(command[0]).name if command else "?"


def measure(work: Path, events: int, dev_minutes: int) -> dict[str, Any]:
    log = work / "log.csv"
    write_log(log, events, users=200_000, items=50_000)
    found = {"csv_bytes": log.stat().st_size}
    found["init"] = measured("init", str(work / "shop"), "--events", str(log), "--yes")
    found["look"] = measured("look", str(log))
    found["dev"] = developed(work / "shop", dev_minutes)
    write_days(work, 3_000, 100)
    for name, where in (("3,000 files", work / "days"), ("one file", work / "one.parquet")):
        found[f"look of {name}"] = measured("look", str(where))
    return found


def measure_own_users(work: Path, events: int) -> dict[str, Any]:
    log, users = work / "log.csv", work / "users.csv"
    write_log(log, events, users=None, items=50_000)
    write_users(users, events)
    return {
        "csv_bytes": log.stat().st_size,
        "init": measured("init", str(work / "shop"), "--events", str(log), "--yes"),
        "look": measured("look", str(log)),
        "look of the project": measured("look", str(work / "shop")),
        "init with users": measured(
            "init", str(work / "with-users"), "--events", str(log), "--users", str(users), "--yes"
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--dev-minutes", type=int, default=15)
    parser.add_argument("--own-users", action="store_true", help="as many users as events; init and look alone")
    parser.add_argument("--work", type=Path, help="a new folder, which stays")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        work = given.work or Path(scratch)
        own = given.own_users
        found = measure_own_users(work, given.events) if own else measure(work, given.events, given.dev_minutes)
        print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
