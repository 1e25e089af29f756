"""``graft student bootstrap``: a version that serves before the first label."""

from pathlib import Path

import click

from graft.commands.output import echo_result, json_option
from graft.process import Process, begin
from runtime.errors import InvalidInputError


@click.command
@click.option(
    "--events",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Take the users and items of an event file's impressions, in place of those of the feature repository.",
)
@json_option
@click.pass_obj
def bootstrap(project_folder: Path | None, events: Path | None, *, as_json: bool) -> None:
    """Distil a first version from the teacher alone, before the first label.

    Users and items of the feature repository's batch tables are combined at random, scored by the teacher with their
    features of now, and learnt by the student; the control stays untrained. 'graft student train' goes on from it.
    Needs 'graft features materialize' and an empty GRAFT_VERSIONS; [bootstrap] in graft.toml has its size.

    Example: graft student bootstrap && graft student train
    """
    from features.reader import OnlineReader
    from features.spec_file import load_spec
    from student.learn.bootstrap import explained_text, run_bootstrap, sample_rows
    from student.versions.registry import Registry
    from teacher_cache.domain_map import DomainMap
    from teacher_cache.request_scorer import RequestScorer
    from teacher_cache.teacher import load_teacher

    process = begin(project_folder)
    project = process.project
    spec = load_spec(project.repo)
    users, items = _ids(process, events)
    model = load_teacher(project.teacher, project.folder)
    report = run_bootstrap(
        setup=project.learner_setup(spec),
        config=project.bootstrap,
        teacher=project.teacher,
        registry=Registry(process.settings.versions),
        row_ids=sample_rows(users, items, project.bootstrap.rows, project.student.seed),
        reader=OnlineReader(spec, process.redis_url),
        scorer=RequestScorer(model, DomainMap(project.teacher, project.folder, model, spec), spec),
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


def _ids(process: Process, events: Path | None) -> tuple[list[int | str], list[int | str]]:
    """The users and items to combine; InvalidInputError when there are none."""
    from features.spec_file import load_spec
    from stream.event_file import impressions_of

    if events is None:
        from features.entities import known_ids  # Feast's import, which an event file spares

        repo = process.project.repo
        users, items = known_ids(repo, process.redis_url, load_spec(repo))
    else:
        ids = [(impression.user_id, impression.item_id) for impression in impressions_of(events)]
        users, items = (list(dict.fromkeys(column)) for column in zip(*ids, strict=True)) if ids else ([], [])
    if not users or not items:
        place = events or f"the batch tables of {process.project.repo}"
        raise InvalidInputError(f"{place}: needs users and items, got {len(users)} users, {len(items)} items")
    return users, items
