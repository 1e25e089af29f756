"""``graft teacher run`` and ``profile``; the other commands of the group have files of their own."""

import time
from contextlib import closing
from pathlib import Path

import click

from graft.commands.backfill import backfill
from graft.commands.cached_logits import get
from graft.commands.explain import explain
from graft.commands.fit import fit
from graft.commands.generations import COMMANDS
from graft.commands.output import echo_result, json_option
from graft.lazy_group import CommandGroup
from graft.process import begin


@click.group(cls=CommandGroup)
def teacher() -> None:
    """Train a teacher; score the target's rows with the teacher into the cache."""


for command in (fit, backfill, explain, get, *COMMANDS):
    teacher.add_command(command)


@teacher.command
@click.pass_obj
def run(project_folder: Path | None) -> None:
    """Score the stream's teacher requests in batches until stopped (SIGTERM or Ctrl-C).

    Example: GRAFT_METRICS_PORT=9101 graft teacher run
    """
    from graft.commands.teacher_parts import ProjectTeacher
    from runtime.absence import Absence, wait_for
    from stream.kafka.connection import wait_for_kafka
    from stream.kafka.topics import ensure_topics
    from stream.log.requests import TeacherRequestReader
    from teacher_cache.scorer.batch_scorer import run_batch_scorer

    process = begin(project_folder)
    stop = process.run_until_stopped()
    project, settings = process.project, process.settings
    teacher = ProjectTeacher(process)
    scorer = wait_for(lambda: teacher.scoring.scorer, Absence("teacher", "waiting for it"), stop)
    unshown = teacher.open_unshown()
    wait_for(teacher.begin, Absence("redis", "waiting for it"), stop)

    def open_reader() -> TeacherRequestReader:
        ensure_topics(settings.kafka, project.stream, project.topics)
        return TeacherRequestReader(settings.kafka, project.topics, process.instance)

    with closing(wait_for_kafka(open_reader, stop)) as reader, teacher.open_profiles() as profiles:
        run_batch_scorer(reader, scorer, teacher.open_cache(), teacher.config, stop, unshown, profiles)


@teacher.command
@json_option
@click.pass_obj
def profile(project_folder: Path | None, *, as_json: bool) -> None:
    """Compute the profiles that are due now: of the ids of the batch tables, and of those that were asked for.

    'graft teacher run' does so all the time; this is for the time before the first event. Needs 'graft features
    materialize'. It may be repeated.

    Example: graft teacher profile && graft student bootstrap
    """
    from graft.commands.teacher_parts import ProjectTeacher
    from graft.progress import progress

    process = begin(project_folder)
    teacher, started = ProjectTeacher(process), time.monotonic()
    if process.project.features.profiles:
        teacher.begin()
    with teacher.open_profiles() as profiles:
        done = 0
        with progress("profiles") as advance:
            while profiles is not None and (due := profiles.refresh()):
                done += due
                advance(done, None)
    seconds = time.monotonic() - started
    line = f"profiles of {done:,} ids in {seconds:.1f} s"
    if not process.project.features.profiles:
        line = "graft.toml has no [[features.profiles]] table: nothing to compute"
    echo_result([line], {"ids": done, "seconds": seconds}, as_json=as_json)
