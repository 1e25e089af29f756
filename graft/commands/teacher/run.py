"""``graft teacher run``: the batch scorer."""

from contextlib import closing
from pathlib import Path

import click

from graft.process import begin


@click.command
@click.pass_obj
def run(project_folder: Path | None) -> None:
    """Score the stream's teacher requests in batches until stopped (SIGTERM or Ctrl-C).

    Example: GRAFT_METRICS_PORT=9101 graft teacher run
    """
    from graft.commands.teacher.teacher_parts import ProjectTeacher
    from runtime.outage import Outage, wait_for
    from stream.kafka.connection import wait_for_kafka
    from stream.kafka.topics import ensure_topics
    from stream.log.requests import TeacherRequestReader
    from teacher_cache.batch_scorer import run_batch_scorer

    process = begin(project_folder)
    stop = process.run_until_stopped()
    project, settings = process.project, process.settings
    teacher = ProjectTeacher(process)
    scorer = wait_for(lambda: teacher.scoring.scorer, Outage("teacher", "waiting for it"), stop)
    wait_for(teacher.begin, Outage("redis", "waiting for it"), stop)

    def open_reader() -> TeacherRequestReader:
        ensure_topics(settings.kafka, project.stream, project.topics)
        return TeacherRequestReader(settings.kafka, project.topics, process.instance)

    with closing(wait_for_kafka(open_reader, stop)) as reader, teacher.open_profiles() as profiles:
        run_batch_scorer(reader, scorer, teacher.open_cache(), teacher.config, stop, profiles)
