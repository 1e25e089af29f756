"""``graft student train``: the learner."""

from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from graft.process import Process, begin

if TYPE_CHECKING:
    from collections.abc import Callable

    from features.spec import FeatureSpec
    from stream.log.examples import ExampleReader


@click.command
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
    _learn(begin(project_folder), log, fill_misses=fill_misses)


def _learn(process: Process, log: Path | None, *, fill_misses: bool) -> None:
    """Learn until stopped."""
    project, settings = process.project, process.settings
    stop = process.run_until_stopped()
    from features.online.served_rows import ServedRowReader
    from features.spec import load_spec
    from graft.commands.teacher.teacher_parts import ProjectTeacher
    from runtime.redis import refuse_wrong_login
    from stream.kafka.connection import wait_for_kafka
    from stream.log.logged_logits import LoggedLogits
    from stream.log.used_logits import UsedLogitsWriter
    from student.learn.exchange import nearest_device, open_exchange
    from student.learn.process.skew_watch import SkewWatch
    from student.learn.process.train import run_training
    from student.versions.registry import Registry

    refuse_wrong_login(process.redis_url)
    teacher = ProjectTeacher(process) if project.teacher else None
    spec = load_spec(project.repo)
    generation = None if teacher is None else teacher.awaited_generation(stop)
    open_source = _source(process, log, spec)
    logged = None if log is None or generation is None else LoggedLogits(log, generation, fill_misses=fill_misses)
    its_id = wait_for_kafka(lambda: _topic_id(process), stop)

    def open_used(generation: str, learner: str) -> UsedLogitsWriter:
        of_learner = partial(UsedLogitsWriter, learner=learner, generation=generation, topic_id=its_id)
        return wait_for_kafka(lambda: of_learner(settings.kafka, project.topics), stop)

    registry = Registry(settings.versions)
    skew = SkewWatch(ServedRowReader(process.redis_url, spec), spec, registry.metrics_folder)
    with closing(skew), open_exchange() as exchange:
        run_training(
            setup=project.learner_setup(spec),
            publish=project.publish,
            gate=project.gate,
            teacher_version=teacher.config.version if teacher else None,
            teacher_generation=generation,
            registry=registry,
            cache=teacher.open_cache() if teacher else None,
            logged=logged,
            open_used=None if generation is None else partial(open_used, generation),
            open_source=lambda offsets: wait_for_kafka(partial(open_source, offsets, ranks=exchange), stop),
            topic_id=its_id,
            stop=stop,
            exchange=exchange,
            device=nearest_device(),
            skew=skew,
        )


def _source(process: Process, log: Path | None, spec: "FeatureSpec") -> "Callable[..., ExampleReader]":
    """What opens the examples from given offsets on: those of the log, if there is one, then the topic's."""
    from stream.log.example_log import ExampleLog, log_then_topic
    from stream.log.examples import ExampleReader

    where = process.settings.kafka, process.project.topics
    if log is None:
        return partial(ExampleReader, *where)
    return partial(log_then_topic, ExampleLog(log, spec.spec_id), *where)


def _topic_id(process: Process) -> str | None:
    """Kafka's id of the examples topic, which is made where it is missing."""
    from stream.kafka.topics import ensure_topics, topic_id

    kafka, project = process.settings.kafka, process.project
    ensure_topics(kafka, project.stream, project.topics)
    return topic_id(kafka, project.topics.examples)
