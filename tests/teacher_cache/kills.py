"""Kills batch scorer and backfill at random moments, with a teacher that fails one call in five.

`python -m tests.teacher_cache.kills --count 100 --seed 1` prints one line for each of the two; exit code 1 when the
cache is not that of an undisturbed run, or rows were put more than a batch more often than a kill explains.

A child dies by SIGKILL at its n-th call of the teacher, of Redis or of a commit, before or after it.
"""

import argparse
import json
import os
import random
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from itertools import count, cycle
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.spec import FeatureSpec
from lab.embedded import EmbeddedRedis
from runtime.child import start_child
from runtime.redis import connect
from runtime.telemetry import StopSignal
from stream.events import TeacherRequest
from stream.log.request_columns import RequestColumns
from teacher_cache import batch_scorer
from teacher_cache.backfill.backfill import backfill
from teacher_cache.backfill.histories import Bounds, Checkpoint, Tracked
from teacher_cache.cache.cache import LogitCache
from teacher_cache.config import TeacherConfig
from teacher_cache.domain.domain_map import DomainMap
from teacher_cache.domain.request_scorer import RefusedRow, RequestScorer
from teacher_cache.kinds.load import load_teacher

ROWS, BATCH_ROWS = 96, 8
KINDS = ("scorer", "backfill")
_ERRORS = (TimeoutError("timed out"), ConnectionResetError("reset"), MemoryError())
_CALLS = 3 * ROWS // BATCH_ROWS  # about as many calls as an undisturbed run makes


class Outcome(NamedTuple):
    """What a killed run left: its logits [N, T], rows put, and kills."""

    logit_NT: NDArray[np.float32]
    put: int
    kills: int


def requests_of(folder: Path) -> list[TeacherRequest]:
    """The requests of a run; every tenth cannot be scored."""
    spec = FeatureSpec.model_validate_json((folder / "spec.json").read_text())
    return [
        TeacherRequest(
            impression_id=f"i{n}",
            user_id=n % 7,
            item_id=n,
            event_time_ms=n,
            context={},
            spec_id=spec.spec_id,
            features=[20, "", [3e38 if n % 10 == 9 else float(n), 3e38 if n % 10 == 9 else 0.0, 0.0], 5.0, n],
        )
        for n in range(ROWS)
    ]


class _Doom:
    """Kills this process at a call."""

    def __init__(self, calls: int, *, before: bool) -> None:
        self._calls, self._last, self._before = count(1), calls, before  # a backfill calls from two threads

    def wrap(self, owner: Any, name: str) -> None:
        """Count the calls of a method."""
        called: Callable[..., Any] = getattr(owner, name)

        def counted(*args: Any, **kwargs: Any) -> Any:
            is_last = next(self._calls) == self._last
            if is_last and self._before:
                os.kill(os.getpid(), signal.SIGKILL)
            try:
                return called(*args, **kwargs)
            finally:
                if is_last:
                    os.kill(os.getpid(), signal.SIGKILL)

        setattr(owner, name, counted)


class _Session:
    """Every fifth call of onnxruntime fails."""

    def __init__(self, session: Any) -> None:
        self._session, self._errors, self._calls = session, cycle(_ERRORS), 0

    def run(self, outputs: Any, feeds: Any) -> Any:
        self._calls += 1
        if self._calls % 5 == 0:
            raise next(self._errors)
        return self._session.run(outputs, feeds)


class _Committed:
    """A topic of requests; what is committed and set aside outlives the process, as in Kafka."""

    def __init__(self, folder: Path, stop: StopSignal) -> None:
        self._requests, self._stop = requests_of(folder), stop
        self._committed, self._aside = folder / "committed", folder / "aside"
        self._at = int(self._committed.read_text()) if self._committed.exists() else 0

    def poll(self, _timeout_seconds: float, max_records: int) -> Sequence[TeacherRequest]:
        batch = self._requests[self._at : self._at + max_records]
        self._at += len(batch)
        if not batch:
            self._stop.set()
        return batch

    def set_aside(self, refused: Sequence[RefusedRow]) -> None:
        with self._aside.open("a") as file:
            file.writelines(f"{row.request.impression_id}\n" for row in refused)

    def commit(self) -> None:
        partial = self._committed.with_suffix(".new")
        partial.write_text(str(self._at))
        partial.replace(self._committed)

    def lag(self) -> int:
        return len(self._requests) - self._at

    def newest(self, _max_records: int) -> list[TeacherRequest]:
        return []

    @property
    def waited_seconds(self) -> float:
        return 0.0

    traceparents = ()


class _History:
    """The same requests in two partitions, for a backfill."""

    def __init__(self, folder: Path) -> None:
        self._requests = requests_of(folder)

    def bounds(self) -> Bounds:
        return Bounds({0: 0, 1: 0}, {0: ROWS // 2, 1: ROWS // 2})

    def read(self, bounds: Bounds) -> Iterator[RequestColumns]:
        for n, request in enumerate(self._requests):
            if n // 2 >= bounds.starts[n % 2]:
                yield RequestColumns.of([(n % 2, n // 2, request)])


def _child(kind: str, folder: Path, redis_url: str, calls: int, *, before: bool) -> None:
    config = TeacherConfig.model_validate_json((folder / "config.json").read_text())
    spec = FeatureSpec.model_validate_json((folder / "spec.json").read_text())
    teacher: Any = load_teacher(config, folder)
    domain_map = DomainMap(config, folder, teacher, spec)
    scorer = RequestScorer(teacher, domain_map, spec)
    teacher._model = _Session(teacher._model)
    cache = LogitCache(redis_url, f"p:{kind}", [task.name for task in config.tasks], 1_000)
    checkpoint = Checkpoint(redis_url, f"p:{kind}", "b", 1_000)
    doom, stop = _Doom(calls, before=before), StopSignal()
    reader = _Committed(folder, stop)
    for owner, name in ((teacher._model, "run"), (cache, "put"), (checkpoint, "save"), (reader, "commit")):
        doom.wrap(owner, name)
    if kind == "scorer":
        batch_scorer.BATCH_ROWS = BATCH_ROWS
        batch_scorer.run_batch_scorer(reader, scorer, cache, config, stop)
        return
    history = _History(folder)
    saved = checkpoint.load()
    requests = Tracked(history, *(saved[:2] if saved else (history.bounds(), {})))
    backfill(
        requests,
        scorer,
        cache,
        progress=lambda _rows, _reached: None,
        batch_rows=BATCH_ROWS,
        put=lambda _, reached: checkpoint.save(requests.bounds, reached),
    )


def killed(kind: str, folder: Path, redis_url: str, kills: int, chance: random.Random) -> Outcome:
    """Run a child until it ends by itself, but kill it `kills` times before."""
    argv = [sys.executable, "-m", "tests.teacher_cache.kills", "--child", kind, str(folder), redis_url]
    done = 0
    for left in range(kills, -1, -1):
        calls = chance.randrange(1, max(2, _CALLS // max(1, left))) if left else 0
        code = start_child([*argv, str(calls), str(chance.randrange(2))]).wait(120)
        assert code in {0, -signal.SIGKILL}, code
        done += code != 0
        if code == 0:
            break
    requests = requests_of(folder)
    with (
        closing(LogitCache(redis_url, f"p:{kind}", ("finish", "rating"), 1_000)) as cache,
        connect(redis_url) as client,
    ):
        found = cache.get(cache.keys_of(requests))
        put = int(client.hget(f"graft:teachers:p:{kind}", "put:run") or 0)  # type: ignore[arg-type]
    return Outcome(found.logit_BT, put, done)


def fault_of(folder: Path, outcome: Outcome) -> str | None:
    """What is wrong with an outcome; None: nothing."""
    scorable = [n % 10 != 9 for n in range(ROWS)]
    expected = np.array([[18.0 + n, 4.5] if scorable[n] else [np.nan] * 2 for n in range(ROWS)], np.float32)
    if outcome.logit_NT.tobytes() != expected.tobytes() and not np.array_equal(
        outcome.logit_NT, expected, equal_nan=True
    ):
        wrong = np.flatnonzero(~((outcome.logit_NT == expected) | np.isnan(expected)).all(axis=1))
        return f"rows {wrong.tolist()} are not those of an undisturbed run"
    most = sum(scorable) + outcome.kills * BATCH_ROWS
    if not sum(scorable) <= outcome.put <= most:
        return f"{outcome.put} rows were put, at most {most} are explained"
    aside = (folder / "aside").read_text().split() if (folder / "aside").exists() else []
    if aside and set(aside) != {f"i{n}" for n in range(ROWS) if not scorable[n]}:
        return f"{sorted(set(aside))} were set aside"
    return None


def _prepare(folder: Path, config: Any, spec: FeatureSpec) -> None:
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "spec.json").write_text(spec.model_dump_json())


def main() -> int:
    """Many kills, in runs of five."""
    from tests.teacher_cache import conftest  # noqa: PLC0415 - a child needs no onnx

    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    chance, is_sound = random.Random(asked.seed), True
    spec = conftest.spec_of(*conftest.FEATURES)
    for kind in KINDS:
        kills, faults = 0, []
        while kills < asked.count:
            with tempfile.TemporaryDirectory() as name, EmbeddedRedis() as server:
                folder = Path(name)
                conftest.save_teacher(folder)
                _prepare(folder, conftest.CONFIG, spec)
                outcome = killed(kind, folder, server.url, 5, chance)
            kills += max(1, outcome.kills)
            faults += [fault] if (fault := fault_of(folder, outcome)) else []
        print(f"{kind}: {kills} kills, {len(faults)} faults {faults[:3]}")  # noqa: T201 - a command's result
        is_sound = is_sound and not faults
    return 0 if is_sound else 1


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        _child(sys.argv[2], Path(sys.argv[3]), sys.argv[4], int(sys.argv[5]), before=sys.argv[6] == "1")
    else:
        sys.exit(main())
