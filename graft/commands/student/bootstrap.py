"""``graft student bootstrap``: a version that serves before the first label."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from graft.commands.options import echo_result, json_option, time_of
from graft.process import Process, begin
from runtime.errors import InvalidInputError

if TYPE_CHECKING:
    from student.learn.bootstrap import Contexts
    from teacher_cache.config import TeacherConfig


@click.command
@click.option(
    "--events",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Take users, items and contexts of an event file's impressions, in place of the feature repository's ids.",
)
@click.option(
    "--until",
    callback=time_of,
    metavar="TIME",
    help="Only ids and impressions that were known at this time (ISO 8601; default: now).",
)
@json_option
@click.pass_obj
def bootstrap(project_folder: Path | None, events: Path | None, until: datetime | None, *, as_json: bool) -> None:
    """Distil a first version from the teacher alone, before the first label.

    Users and items of the feature repository's batch tables are combined at random, scored by the teacher with their
    features of now, and learnt by the student; the control stays untrained. 'graft student train' goes on from it.
    With --events each row has a context that its user has had; else the context's features are their defaults.
    Needs 'graft features materialize' and an empty GRAFT_VERSIONS; [bootstrap] in graft.toml has its size.

    Example: graft student bootstrap && graft student train
    """
    from features.online.reader import OnlineReader
    from graft.commands.teacher.teacher_parts import ProjectTeacher
    from student.learn.bootstrap import explained_text, run_bootstrap, sample_rows
    from student.versions.registry import Registry

    process = begin(project_folder)
    project, teacher = process.project, ProjectTeacher(process)
    spec = teacher.spec
    moment = until or datetime.now(UTC)
    _refuse_before_cut_off(moment, project.needed_teacher)
    users, items, contexts = _ids(process, events, moment)
    report = run_bootstrap(
        setup=project.learner_setup(spec),
        config=project.bootstrap,
        teacher=teacher.config,
        generation=teacher.generation.digest,
        registry=Registry(process.settings.versions),
        rows=sample_rows(users, items, project.bootstrap.rows, project.student.seed, contexts),
        reader=OnlineReader(spec, process.redis_url),
        scorer=teacher.scoring.scorer,
    )
    published = (
        f"published {report.version}: {report.rows:,} rows of {len(users):,} users and {len(items):,} items, "
        f"{report.steps:,} steps, {report.seconds:.1f} s"
    )
    learnt = f"the student explains of the teacher's variance on held-out rows: {explained_text(report.explained)}"
    unlearnt = [task for task, share in report.explained.items() if share < report.least_explained]
    if unlearnt:
        learnt += f"; no served head starts from {', '.join(unlearnt)}, below {100 * report.least_explained:.3g} %"
    echo_result([published, learnt], {**report._asdict(), "users": len(users), "items": len(items)}, as_json=as_json)


def _refuse_before_cut_off(moment: datetime, teacher: "TeacherConfig") -> None:
    """InvalidInputError where examples after `moment` may be among those that the teacher was trained on."""
    if 1000 * moment.timestamp() < teacher.logits_from_ms and teacher.trained_until is not None:
        raise InvalidInputError(
            f"--until {moment.isoformat()} lies before teacher.trained_until, {teacher.trained_until.isoformat()}: the "
            "student would know of its teacher what only the examples after it tell; name a later time, or leave "
            "out teacher.trained_until where the teacher never saw them"
        )


def _ids(process: Process, events: Path | None, until: datetime) -> "tuple[list[int | str], list[int | str], Contexts]":
    """The users and items to combine, and the users' contexts; InvalidInputError when there are none of either."""
    from features.spec import load_spec

    contexts: dict[int | str, list[dict[str, Any]]] = {}
    if events is None:
        from features.repo.store import known_ids  # Feast's import, which an event file spares

        repo = process.project.repo
        users, items = known_ids(repo, process.redis_url, load_spec(repo), until)
    else:
        from stream.replay.event_file import impressions_of

        shown = [one for one in impressions_of(events) if one.event_time_ms <= 1000 * until.timestamp()]
        for one in shown:
            contexts.setdefault(one.user_id, []).append(one.context)
        users, items = list(contexts), list(dict.fromkeys(one.item_id for one in shown))
    if not users or not items:
        place = events or f"the batch tables of {process.project.repo}"
        raise InvalidInputError(
            f"{place}: needs users and items that are known by {until.isoformat()}, got {len(users)} users, "
            f"{len(items)} items"
        )
    return users, items, contexts
