"""``graft teacher fit``."""

import shlex
from pathlib import Path

import click

from graft.commands.options import columns_given, echo_result, json_option, label_option, map_option
from graft.process import begin

_NO_PROFILES = (
    "whether profiles are worth it: what the teacher says of a user or an item on average is no feature yet; 'graft "
    "init' with --source-events writes a new folder with it, or add [[features.profiles]] to this one"
)


@click.command
@click.argument("folder", required=False, type=click.Path(file_okay=False, path_type=Path))
@click.option("--events", required=True, metavar="F", help="The source's log: CSV, TSV, JSONL, Parquet; also a folder.")
@click.option("--users", metavar="T", help="A table of the source's users.")
@click.option("--items", metavar="T", help="A table of the source's items.")
@map_option
@label_option
@json_option
@click.pass_obj
def fit(  # noqa: PLR0913 - one argument an option
    project_folder: Path | None,
    folder: Path | None,
    *,
    events: str,
    users: str | None,
    items: str | None,
    mapped: tuple[str, ...],
    labels: tuple[str, ...],
    as_json: bool,
) -> None:
    """Train a teacher on the source's log, for the project in FOLDER, and write it there as ONNX.

    Its inputs are the features that source and target share by name and type; its tasks are the log's labels. The last
    tenth of the rows is held out, and the command prints how well the teacher does there. It adds the teacher's tables
    to graft.toml; a project that has a teacher is refused.

    Example: graft teacher fit shop --events sister/ratings.csv --items sister/movies.csv
    """
    from graft.check import check_project
    from graft.fit.domain import SourceFiles, domain_of_project, read_source
    from graft.fit.fit import HEAD, check_place, has_place_for_unlisted, place, prepare
    from graft.fit.fit import fit as fit_teacher
    from graft.init.plan import TEACHER
    from graft.init.report import aligned
    from graft.init.roles import Given
    from graft.progress import progress

    process = begin(folder or project_folder)
    project = process.project
    check_place(project)
    source = read_source(SourceFiles(events, users, items), Given(columns_given(mapped), labels))
    target = domain_of_project(project, process.redis_url, with_unlisted=has_place_for_unlisted(project))
    prepared = prepare(target, source)
    click.echo("\n".join(aligned(HEAD, prepared.table())), err=as_json)
    with progress("teacher") as advance:
        fitted = fit_teacher(prepared, advance)
    tables = place(project, fitted)
    check_project(project.folder, process.redis_url, process.teacher_access)
    notes = prepared.matched().notes + ([] if project.features.profiles else [_NO_PROFILES])
    lines = [*fitted.report.lines(), f"wrote {project.folder / TEACHER}; its tables are in {tables}"]
    lines += ["only you know:", *(f"  - {note}" for note in notes)]
    where = shlex.quote(str(project.folder))
    lines.append(f"next: graft --project {where} features apply; the student is learnt anew into a new GRAFT_VERSIONS")
    result = {"file": TEACHER, "tables": str(tables), **fitted.report.summary(), "only_you_know": notes}
    echo_result(lines, result, as_json=as_json)
