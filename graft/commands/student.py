"""``graft student``: its commands. The scorer imports neither torch nor Feast."""

import socket
import sys
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from graft.commands import remote, versions
from graft.commands.bootstrap import bootstrap
from graft.commands.skew import skew
from graft.process import Process, begin
from graft.settings import Settings

if TYPE_CHECKING:
    from runtime.telemetry import StopSignal
    from student.serve.listener import Address, Group, Listeners


@click.group
def student() -> None:
    """Learn, publish and serve the student."""


for command in (bootstrap, skew, *versions.COMMANDS, *remote.COMMANDS):
    student.add_command(command)


@student.command
@click.option(
    "--from",
    "log",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="LOG",
    help="Learn what this example log has first, then the stream from where it ends.",
)
@click.option(
    "--fill-misses",
    is_flag=True,
    help="With --from: look in the cache for logits that the log's learner did not have; a backfill may have put them.",
)
@click.pass_obj
def train(project_folder: Path | None, *, log: Path | None, fill_misses: bool) -> None:
    """Learn from the stream of examples until stopped (SIGTERM or Ctrl-C), and publish versions on the way.

    Goes on from the newest version in GRAFT_VERSIONS. One learner per folder. It computes on a GPU where CUDA sees one.
    Under torchrun it is several processes that learn as one; each reads its share of the partitions, and serves its
    metrics at GRAFT_METRICS_PORT + LOCAL_RANK.

    An example log has the teacher's logits that were used, and these are learnt again, or that there was none: Redis is
    asked only for examples of which the log does not say it for this project's generation of logits.

    Example: GRAFT_METRICS_PORT=9102 graft student train --from example-log

    Example: torchrun --nproc-per-node 2 -m graft student train
    """
    if fill_misses and log is None:
        raise click.UsageError("--fill-misses needs --from LOG: without a log every logit comes from the cache")
    process = begin(project_folder)
    project, settings = process.project, process.settings
    stop = process.run_until_stopped()
    from features.served_rows import ServedRowReader
    from features.spec_file import load_spec
    from graft.commands.teacher_parts import ProjectTeacher
    from runtime.redis import refuse_wrong_login
    from stream.connection import wait_for_kafka
    from stream.example_log import ExampleLog, log_then_topic
    from stream.examples import ExampleReader
    from stream.logged_logits import LoggedLogits
    from stream.topics import ensure_topics, topic_id
    from stream.used_logits import UsedLogitsWriter
    from student.learn.exchange import nearest_device, open_exchange
    from student.learn.skew_watch import SkewWatch
    from student.learn.train import run_training
    from student.versions.registry import Registry

    refuse_wrong_login(process.redis_url)
    teacher = ProjectTeacher(process) if project.teacher else None
    spec = load_spec(project.repo)
    generation = None if teacher is None else teacher.awaited_generation(stop)
    open_source = partial(ExampleReader, settings.kafka, project.topics)
    logged: LoggedLogits | None = None
    if log is not None:
        open_source = partial(log_then_topic, ExampleLog(log, spec.spec_id), settings.kafka, project.topics)
        logged = None if generation is None else LoggedLogits(log, generation, fill_misses=fill_misses)

    def ensured() -> str | None:
        ensure_topics(settings.kafka, project.stream, project.topics)
        return topic_id(settings.kafka, project.topics.examples)

    its_id = wait_for_kafka(ensured, stop)

    def open_used(generation: str, learner: str) -> UsedLogitsWriter:
        of_learner = partial(UsedLogitsWriter, learner=learner, generation=generation, topic_id=its_id)
        return wait_for_kafka(lambda: of_learner(settings.kafka, project.topics), stop)

    registry = Registry(settings.versions)
    skew = SkewWatch(ServedRowReader(process.redis_url, spec), spec, project.skew, registry.metrics_folder)
    with closing(skew), open_exchange() as exchange:
        run_training(
            setup=project.learner_setup(spec),
            publish=project.publish,
            gate=project.gate,
            teacher_version=teacher.config.version if teacher else None,
            teacher_generation=generation,
            registry=registry,
            cache=teacher.open_cache() if teacher else None,
            unshown=teacher.open_unshown_cache() if teacher else None,
            logged=logged,
            open_used=None if generation is None else partial(open_used, generation),
            open_source=lambda offsets: wait_for_kafka(partial(open_source, offsets, ranks=exchange), stop),
            topic_id=its_id,
            stop=stop,
            exchange=exchange,
            device=nearest_device(),
            skew=skew,
        )


@student.command
@click.option("--host", help="Where to listen; overrides GRAFT_HTTP_HOST.")
@click.option("--port", type=click.IntRange(1, 65_535), help="Overrides GRAFT_HTTP_PORT.")
@click.option("--workers", type=click.IntRange(1, 256), help="Processes; overrides GRAFT_HTTP_WORKERS.")
@click.option("--listener", "inherited", type=(str, int), multiple=True, hidden=True)  # of a worker: its open files
@click.pass_obj
def serve(
    project_folder: Path | None,
    host: str | None,
    port: int | None,
    workers: int | None,
    inherited: tuple[tuple["Group", int], ...],
) -> None:
    """Answer POST /score from the champion version, and swap to each new one.

    Needs no project folder: a version holds all that serving it takes. Metrics are at /metrics of the same port, or of
    GRAFT_METRICS_PORT.

    Example: graft student serve --port 8080
    """
    from runtime.redis import refuse_wrong_login
    from runtime.telemetry import StopSignal
    from student.serve.listener import listen
    from student.serve.workers import run_workers

    process = begin(project_folder)
    settings, stop = process.settings, StopSignal().install()
    if inherited:
        _serve(process, {group: socket.socket(fileno=number) for group, number in inherited}, stop)
        return
    refuse_wrong_login(process.redis_url)  # at the start alone: later it answers from defaults, whatever Redis says
    count = workers or settings.http_workers
    with listen(_addresses(settings, host, port)) as listeners:
        if count > 1:
            run_workers([sys.executable, "-m", "graft", *sys.argv[1:]], count, listeners, stop)
        else:
            _serve(process, listeners, stop)


def _addresses(settings: Settings, host: str | None, port: int | None) -> dict["Group", "Address"]:
    from student.serve.listener import Address

    scores = Address(host or settings.http_host, port or settings.http_port, "--host and --port")
    addresses: dict[Group, Address] = {"scores": scores}
    if settings.admin_port is not None:
        addresses["administration"] = Address(settings.admin_host, settings.admin_port, "GRAFT_ADMIN_PORT")
    if settings.metrics_port is not None:
        addresses["metrics"] = Address(settings.metrics_host, settings.metrics_port, "GRAFT_METRICS_PORT")
    return addresses


def _serve(process: Process, listeners: "Listeners", stop: "StopSignal") -> None:
    from features.item_table import TableLimits
    from student.serve.connections import Limits
    from student.serve.server import run_server
    from student.serve.swap import ChampionSwap
    from student.serve.tokens import Tokens
    from student.versions.registry import Registry

    settings = process.settings
    items = TableLimits(settings.items_in_memory, settings.items_max_age_seconds)
    run_server(
        ChampionSwap(Registry(settings.versions), process.redis_url, items),
        listeners,
        stop,
        Limits(connections=settings.http_connections, requests=settings.http_requests),
        None if settings.http_tokens_file is None else Tokens(settings.http_tokens_file),
        settings.http_sample,
    )
