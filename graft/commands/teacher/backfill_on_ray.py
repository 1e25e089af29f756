"""``graft teacher backfill --engine ray``: the shares of a history on the machines of a Ray cluster.

The one door of Ray. Each actor loads the teacher once, and fills one share after the other, with a checkpoint for each
in Redis. What travels between machines is the `Errand`; Redis' address does not: each node has it from its own
settings, as every process of graft.
"""

import json
import logging
import os
import socket
import sys
import time
from contextlib import closing, redirect_stdout
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from graft.process import Process, begin
from graft.progress import Advance
from runtime.errors import ConfigurationError, GraftError, InvalidInputError
from runtime.folder import file_sha256
from runtime.redis import parse_url
from stream.log.example_log import ExampleLog
from stream.log.request_columns import Share
from stream.log.row_file import count_rows
from teacher_cache.backfill.backfill import Manner, backfill
from teacher_cache.backfill.backfill_report import BackfillReport, Counts
from teacher_cache.backfill.histories import Bounds, History, LoggedExamples, Offsets, Saved, ShareOfRows, Tracked

if TYPE_CHECKING:
    from graft.commands.teacher.teacher_parts import ProjectTeacher

_LOG = logging.getLogger(__name__)

_SHARES_A_WORKER = 2
"""So that a worker that is lost leaves less than its all to the others. Each share reads the whole history."""


class Source(NamedTuple):
    """What is read: an example log, with bounds of its impressions' times, or a file of rows with its SHA-256."""

    log: Path | None
    rows: Path | None
    rows_digest: str | None
    since_ms: int | None
    until_ms: int | None


class Errand(NamedTuple):
    """What every node has to know. No secret is in it.

    `redis` is the address without password, `generation` a `Generation.key`: each node compares them with its own.
    `ends` are where the history ended when the command began. `name` is of this run of the backfill.
    """

    project: Path
    redis: str
    generation: str
    source: Source
    manner: Manner
    ends: dict[int, int]
    shares: int
    name: str

    def checkpoint_name(self, share: int) -> str:
        """Of the checkpoint of one share."""
        return f"{self.name}-{share}"


class Filler:
    """An actor: fills the shares that it is given, one by one."""

    def __init__(self, errand: Errand) -> None:
        self._errand = errand

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The counts of one share as JSON; or what is wrong with this node or the history, as text."""
        (share,) = batch["share"].tolist()
        counts, fault = Counts(), ""
        try:
            counts = self._fill(share)
        except GraftError as error:
            fault = f"node {socket.gethostname()}: {error}"
        return {"counts": np.array([json.dumps(counts)]), "fault": np.array([fault])}

    @cached_property
    def _teacher(self) -> "ProjectTeacher":
        """The teacher of this node's folder; ConfigurationError when it is another one than the command's."""
        from graft.commands.teacher.teacher_parts import ProjectTeacher

        errand, process = self._errand, begin(self._errand.project)
        if (redis := str(parse_url(process.redis_url))) != errand.redis:
            fault = f"GRAFT_REDIS_URL names {redis}, and that of the command {errand.redis}; set it, or "
            raise ConfigurationError([f"{fault}GRAFT_REDIS_URL_FILE, where 'ray start' runs, on each node"])
        teacher = ProjectTeacher(process)
        teacher.scoring  # noqa: B018 - loaded
        if (generation := teacher.generation.key) != errand.generation:
            fault = f"{errand.project} makes the generation {generation}, and that of the command {errand.generation}"
            raise ConfigurationError([f"{fault}; bring the same project folder to each node"])
        rows = errand.source.rows
        if rows is not None and file_sha256(rows) != errand.source.rows_digest:
            raise InvalidInputError(f"{rows} is another file than that of the command; copy it to each node")
        return teacher

    def _fill(self, share: int) -> Counts:
        teacher, errand = self._teacher, self._errand
        history = self._history(teacher, Share(share, errand.shares))
        counts = Counts()

        def put(so_far: Counts, reached: Offsets) -> None:
            nonlocal counts
            counts = so_far
            checkpoint.save(requests.bounds, reached, counts._asdict())

        with (
            closing(teacher.open_checkpoint(errand.checkpoint_name(share))) as checkpoint,
            closing(teacher.open_cache("backfill")) as cache,
        ):
            saved = checkpoint.load()
            if saved is not None:
                known = {name: saved.numbers[name] for name in Counts._fields if name in saved.numbers}
                counts = Counts(**known)  # type: ignore[arg-type] # an earlier release saved more
            requests = Tracked(history, self._bounds(history), saved.position if saved else {})
            backfill(
                requests,
                teacher.scoring.scorer,
                cache,
                progress=lambda _rows, _reached: None,
                manner=errand.manner,
                put=put,
                before=counts,
            )
        return counts

    def _bounds(self, history: History) -> Bounds:
        """Those of the command; InvalidInputError when this node's history is shorter."""
        bounds, ends = history.bounds(), self._errand.ends
        short = [f"partition {p} to {end - 1}" for p, end in ends.items() if bounds.ends.get(p, 0) < end]
        if short:
            where = self._errand.source.log or self._errand.source.rows
            raise InvalidInputError(f"{where} does not have the offsets of {', '.join(short)}; copy it to each node")
        return bounds._replace(ends=dict(ends))

    def _history(self, teacher: "ProjectTeacher", share: Share) -> History:
        source = self._errand.source
        if source.log is not None:
            return LoggedExamples(ExampleLog(source.log), source.since_ms, source.until_ms, share)
        from features.online.reader import OnlineReader

        assert source.rows is not None
        reader = OnlineReader(teacher.spec, teacher.process.redis_url)
        return ShareOfRows(source.rows, teacher.project.features.context, share, reader, teacher.spec)


def fill_on_ray(
    process: Process,
    teacher: "ProjectTeacher",
    source: Source,
    manner: Manner,
    *,
    name: str,
    resume: bool,
    advance: Advance,
) -> BackfillReport:
    """Fill the cache on the cluster that RAY_ADDRESS names, or that runs on this machine.

    What Ray prints meanwhile goes to standard error. `name` tells this backfill from others. GraftError without a
    cluster, and for what is wrong on a node.
    """
    with redirect_stdout(sys.stderr):
        workers = _join_cluster()
        try:
            return _fill(process, teacher, source, manner, workers, name, resume=resume, advance=advance)
        finally:
            _leave_cluster()


def _fill(  # noqa: PLR0913 - as `fill_on_ray`
    process: Process,
    teacher: "ProjectTeacher",
    source: Source,
    manner: Manner,
    workers: int,
    name: str,
    *,
    resume: bool,
    advance: Advance,
) -> BackfillReport:
    started = time.monotonic()
    if manner.max_rows_per_second is not None:
        manner = manner._replace(max_rows_per_second=manner.max_rows_per_second / workers)
    redis, project = str(parse_url(process.redis_url)), teacher.project.folder.resolve()
    with closing(teacher.open_checkpoint(name)) as checkpoint:
        plan = checkpoint.load() if resume else None
        if plan is None:
            numbers = {"shares": workers * _SHARES_A_WORKER, "run": time.time_ns() // 1_000_000}
            plan = Saved(Bounds({}, _ends(source)), {}, numbers)
            checkpoint.save(*plan)
        shares, run = int(plan.numbers["shares"]), int(plan.numbers["run"])
        errand = Errand(
            project, redis, teacher.generation.key, source, manner, plan.bounds.ends, shares, f"{name}-{run}"
        )
        counts = _filled(errand, min(workers, shares), advance)
        checkpoint.remove()
    for share in range(shares):
        with closing(teacher.open_checkpoint(errand.checkpoint_name(share))) as checkpoint:
            checkpoint.remove()
    if counts.left_out:
        _LOG.warning("left out rows=%d of another feature spec, or that the teacher cannot score", counts.left_out)
    return counts.report(time.monotonic() - started, teacher.scoring.scorer.defaulted_share)


def _join_cluster() -> int:
    """Connect to the cluster; how many workers it has room for, one a CPU."""
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise GraftError(f"--engine ray needs an extra: pip install 'graft[ray]' ({error})") from error
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    address = os.environ.get("RAY_ADDRESS") or "auto"
    try:
        ray.init(address=address, logging_level=logging.WARNING, log_to_driver=False)
    except ConnectionError as error:
        raise GraftError(
            "no Ray cluster answers; start one with 'ray start --head', and 'ray start --address' on the other "
            "machines, or name one by RAY_ADDRESS"
        ) from error
    return max(1, int(ray.cluster_resources().get("CPU", 0)))


def _leave_cluster() -> None:
    import ray

    ray.shutdown()


def _ends(source: Source) -> dict[int, int]:
    if source.log is not None:
        return ExampleLog(source.log).offsets_end()
    assert source.rows is not None
    return {0: count_rows(source.rows)}


def _filled(errand: Errand, workers: int, advance: Advance) -> Counts:
    """All shares filled by so many actors. Ray starts an actor that is lost anew, and gives it its share again."""
    import ray

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    counts, done = Counts(), 0
    filled = ray.data.from_items([{"share": n} for n in range(errand.shares)], override_num_blocks=errand.shares)
    filled = filled.map_batches(
        Filler,
        fn_constructor_args=[errand],
        batch_size=1,
        num_cpus=1,
        compute=ray.data.ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=1),
    )
    for row in filled.iter_rows():
        if row["fault"]:
            raise GraftError(row["fault"])
        counts, done = counts.plus(Counts(*json.loads(row["counts"]))), done + 1
        advance(done, errand.shares)
    return counts
