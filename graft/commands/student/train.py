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
@click.pass_obj
def train(project_folder: Path | None, *, log: Path | None) -> None:
    """Learn from the stream of examples until stopped (SIGTERM or Ctrl-C), and publish versions on the way.

    Goes on from the newest version in GRAFT_VERSIONS. One learner per folder. It computes on a GPU where CUDA sees one.
    Under torchrun it is several processes that learn as one; each reads its share of the partitions, and serves its
    metrics at GRAFT_METRICS_PORT + LOCAL_RANK.

    An example log has the teacher's logits that Redis had when it was written, and these are learnt again; Redis is
    asked for the others, and where the log has those of another generation.

    Example: GRAFT_METRICS_PORT=9102 graft student train --from example-log

    Example: torchrun --nproc-per-node 2 -m graft student train
    """
    process = begin(project_folder)
    project, settings = process.project, process.settings
    stop = process.run_until_stopped()
    from features.online.served_rows import ServedRowReader
    from features.spec import load_spec
    from graft.commands.teacher.teacher_parts import ProjectTeacher
    from runtime.redis import refuse_wrong_login
    from stream.kafka.connection import wait_for_kafka
    from student.learn.exchange import nearest_device, open_exchange
    from student.learn.process.publishing import Publication
    from student.learn.process.skew_watch import SkewWatch
    from student.learn.process.teacher_source import Teaching
    from student.learn.process.train import Examples, run_training
    from student.versions.registry import Registry

    refuse_wrong_login(process.redis_url)
    teacher = ProjectTeacher(process) if project.teacher else None
    spec = load_spec(project.repo)
    teaching = None
    if teacher is not None:
        generation = teacher.awaited_generation(stop)
        teaching = Teaching(teacher.open_cache(), teacher.config.version, generation)
    open_source = _source(process, log, spec)
    its_id = wait_for_kafka(lambda: _topic_id(process), stop)
    registry = Registry(settings.versions)
    skew = SkewWatch(ServedRowReader(process.redis_url, spec), spec, registry.metrics_folder)
    with closing(skew), open_exchange() as exchange:
        run_training(
            project.learner_setup(spec),
            Examples(lambda offsets: wait_for_kafka(partial(open_source, offsets, ranks=exchange), stop), its_id),
            teaching,
            Publication(registry, project.publish, project.gate),
            stop,
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
