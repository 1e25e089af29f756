"""``graft init``."""

import shlex
import sys
from functools import partial
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from graft.commands.options import columns_given, echo_json, json_option, label_option, map_option
from graft.lazy_group import ENTRY_POINT_GROUP
from graft.process import begin
from runtime.errors import ConfigurationError, GraftError, InvalidInputError
from stream.join.sampling import MOST_DRAWN

if TYPE_CHECKING:
    from graft.fit.domain import Domain
    from graft.fit.fit import Fitted, Prepared
    from graft.init.columns import Column
    from graft.init.plan import Plan
    from graft.init.roles import Given, Question, Roles
    from graft.init.write import Written

_NEGATIVES = click.IntRange(0, MOST_DRAWN)
_HEAD = ("role", "column", "kind", "such as", "why")
_INPUT_HEAD = ("input", "type", "fed by", "missing", "why")


@click.command
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--events", required=True, metavar="F", help="The log: CSV, TSV, JSONL or Parquet; a folder or a glob.")
@click.option("--users", metavar="T", help="A table of the users, in any of these forms.")
@click.option("--items", metavar="T", help="A table of the items.")
@click.option(
    "--teacher", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="The teacher's ONNX file."
)
@map_option
@label_option
@click.option(
    "--negatives",
    type=_NEGATIVES,
    metavar="N",
    help="Where every row is a yes: draw N negatives beside each, 0 for none.  [default: 4]",
)
@click.option("--source-events", metavar="F", help="No teacher file? The sister's log, to train one on.")
@click.option("--source-users", metavar="T", help="A table of the sister's users.")
@click.option("--source-items", metavar="T", help="A table of the sister's items.")
@click.option("--source-map", multiple=True, metavar="ROLE=COLUMN", help="As --map, of the sister's log.")
@click.option("--source-label", multiple=True, metavar="'NAME = ...'", help="As --label, of the sister's log.")
@click.option("--yes", is_flag=True, help="Take the guesses without asking.")
@json_option
def init(  # noqa: PLR0913 - one argument an option
    folder: Path,
    *,
    events: str,
    users: str | None,
    items: str | None,
    teacher: Path | None,
    mapped: tuple[str, ...],
    labels: tuple[str, ...],
    negatives: int | None,
    yes: bool,
    as_json: bool,
    **source: Any,
) -> None:
    """Write a project FOLDER from a log, tables and a teacher in any common form.

    Finds the columns by name, type and content, shows what it took and why, and asks on a terminal. A file that is
    there is never overwritten. Several columns of context: --map context=device,hour; none: --map context=. Without a
    teacher's file, --source-events trains a teacher on the sister's log, on the features that both have.

    Example: graft init shop --events ratings.csv --items movies.csv --teacher model.onnx --label 'liked = rating >= 4'
    """
    from graft.init.log import read_any_log
    from graft.init.report import aligned, only_a_human, role_rows
    from graft.init.roles import Given
    from graft.init.write import check_free, make_plan, write_project

    process = begin(None)
    _check_source_options(source, teacher)
    check_free(folder, with_teacher=bool(source["source_events"]))
    asks = is_terminal() and not yes
    log = read_any_log(events, Given(columns_given(mapped), labels), partial(_decided, asks=asks))
    _say(aligned(_HEAD, role_rows(log.roles)), as_json=as_json)
    plan = make_plan(folder, log, {"user": users, "item": items}, teacher)
    plan.negatives = _negatives(plan, negatives, asks=asks)
    prepared = _prepared(plan, source)
    if plan.teacher:
        _say(_feeding(plan, prepared), as_json=as_json)
    if asks:
        click.confirm("Write this?", default=True, abort=True, err=True)
    elif not yes:
        raise InvalidInputError("nothing was written: no terminal to ask on; take what stands above with --yes")
    fitted = _fitted(prepared) if prepared else None
    written = write_project(folder, plan, teacher, fitted and fitted.write)
    faults, open_points = _faults(folder, process.redis_url), list(only_a_human(plan))
    remarks = _notes(folder, plan, process.redis_url, has_faults=bool(faults))
    if as_json:
        report = fitted.report.summary() if fitted else None
        echo_json({**_summary(plan, written, remarks, open_points, faults), "teacher": report})
    else:
        learnt = fitted.report.lines() if fitted else []
        click.echo("\n".join([*learnt, *_result(folder, written, remarks, open_points, faults)]))
    if faults:
        raise ConfigurationError(faults)


def _check_source_options(source: dict[str, Any], teacher: Any) -> None:
    """UsageError where options do not go together."""
    events = source["source_events"]
    if events and teacher:
        raise click.UsageError("--teacher and --source-events exclude each other: a teacher is there, or is trained")
    alone = [name for name, value in source.items() if value and not events]
    if alone:
        raise click.UsageError(f"--{alone[0].replace('_', '-')} needs --source-events")


def _source_given(source: dict[str, Any]) -> "Domain | None":
    """What the options name, read; None where they name nothing."""
    from graft.fit.domain import SourceFiles, read_source
    from graft.init.roles import Given

    if not source["source_events"]:
        return None
    files = SourceFiles(source["source_events"], source["source_users"], source["source_items"])
    return read_source(files, Given(columns_given(source["source_map"]), source["source_label"]), "--source-")


def _negatives(plan: "Plan", given: int | None, *, asks: bool) -> int | None:
    """How many are drawn beside each row of a log of positives alone, as the user says; None: nobody has said."""
    from graft.init.plan import DRAWN_NEGATIVES

    if not plan.is_positives_only:
        if given is not None:
            raise InvalidInputError(
                "--negatives: the log has rows that are no yes, which are its negatives; leave the option out, or name "
                "the label whose every row is a yes with --label 'bought = 1'"
            )
        return None
    if given is None and asks:
        text = "Every row is a yes. Negatives to draw beside each, 0 for none"
        chosen: int = click.prompt(text, type=_NEGATIVES, default=DRAWN_NEGATIVES, err=True)
        return chosen
    return given


def _prepared(plan: "Plan", source: dict[str, Any]) -> "Prepared | None":
    """What a teacher takes that is trained on the source's log, of which the plan then tells; None without a log."""
    from graft.fit.domain import domain_of_plan
    from graft.fit.fit import prepare

    log = _source_given(source)
    if log is None:
        return None
    prepared = prepare(domain_of_plan(plan), log)
    plan.teacher = prepared.matched()
    return prepared


def _feeding(plan: "Plan", prepared: "Prepared | None") -> list[str]:
    """A table of what feeds the inputs of the teacher."""
    from graft.fit.fit import HEAD
    from graft.init.report import aligned, input_rows

    return ["", *(aligned(HEAD, prepared.table()) if prepared else aligned(_INPUT_HEAD, input_rows(plan)))]


def _fitted(prepared: "Prepared") -> "Fitted":
    from graft.fit.fit import fit
    from graft.progress import progress

    with progress("teacher") as advance:
        return fit(prepared, advance)


def is_terminal() -> bool:
    """Whether there is someone to ask."""
    return sys.stdin.isatty()


def _say(lines: list[str], *, as_json: bool) -> None:
    click.echo("\n".join(lines), err=as_json)


def _decided(columns: "dict[str, Column]", given: "Given", *, asks: bool) -> "Roles":
    """The roles, after asking what could not be decided; without a terminal InvalidInputError with every question."""
    from graft.init.decide import decide
    from graft.init.log import decided

    while asks and (questions := decide(columns, given).questions):
        for question in questions:
            click.echo(question.text, err=True)
            given = given.also(question.role, _answer(question, columns))
    return decided(columns, given)


def _answer(question: "Question", columns: "dict[str, Column]") -> str:
    """A column, or the expression of a label, which is asked for until it is one; standard output is for --json."""
    from graft.init.roles import parse_label

    def label(text: str) -> str:
        try:
            parse_label(text, columns)
        except InvalidInputError as error:
            raise click.UsageError(str(error)) from None
        return text

    if question.role == "label":
        asked: str = click.prompt(f"label, such as {' or '.join(question.options)}", value_proc=label, err=True)
    else:
        asked = click.prompt(question.role, type=click.Choice(question.options or list(columns)), err=True)
    return asked


def _notes(folder: Path, plan: "Plan", redis_url: str, *, has_faults: bool) -> list[str]:
    """What looks odd; of an event file that was copied also how many events the stream would not take."""
    from graft.init.report import notes
    from graft.init.write import note_of_copied

    copied = note_of_copied(folder, redis_url) if plan.event_file and not has_faults else ""
    return [*([copied] if copied else []), *notes(plan)]


def _faults(folder: Path, redis_url: str) -> list[str]:
    """What `graft check` finds in the new folder."""
    from graft.check import check_project

    try:
        check_project(folder, redis_url)
    except ConfigurationError as error:
        return list(error.faults)
    except GraftError as error:
        return [str(error)]
    return []


def _result(
    folder: Path, written: "Written", remarks: list[str], open_points: list[str], faults: list[str]
) -> list[str]:
    lines = ["", f"wrote {folder}: {written.impressions:,} impressions and {written.feedback:,} feedback events"]
    lines += [f"  note: {note}" for note in remarks]
    lines += ["only you know:", *(f"  - {point}" for point in open_points)]
    if not faults:
        lines.append(f"next: look at '# guessed:' in {folder / 'graft.toml'}")
        lines.append(_next_command(folder, written))
    return lines


def _next_command(folder: Path, written: "Written") -> str:
    """Needs the laboratory; the steps of docs/your-own-pair.md do without."""
    project = shlex.quote(str(folder))
    if "dev" in entry_points(group=ENTRY_POINT_GROUP).names:
        return f"then: graft dev {project}"
    events = shlex.quote(str(folder / written.file))
    return (
        f"then: graft --project {project} replay {events} --dry-run; with the laboratory installed: graft dev {project}"
    )


def _summary(
    plan: "Plan", written: "Written", remarks: list[str], open_points: list[str], faults: list[str]
) -> dict[str, Any]:
    roles = plan.roles
    return {
        "impressions": written.impressions,
        "feedback": written.feedback,
        "columns": {pick.role: pick.column for pick in roles.picks.values()},
        "labels": [str(label) for label in roles.labels],
        "context": [context.column for context in roles.context],
        "unused": list(roles.unused),
        "teacher_inputs": {m.name: m.candidate.name if m.candidate else None for m in plan.teacher.inputs}
        if plan.teacher
        else {},
        "profiles": {profile.view: list(profile.means) for profile in plan.profiles},
        "notes": remarks,
        "only_you_know": open_points,
        "faults": faults,
    }
