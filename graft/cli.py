"""The command line: ``graft NOUN VERB``. A command is imported when it runs."""

import atexit
import gc
import sys
from pathlib import Path

import click

from graft.lazy_group import LazyCommand, LazyGroup, Purpose

_BY_PURPOSE: dict[Purpose, dict[str, tuple[str, str]]] = {
    "start": {
        "init": ("init:init", "Write a project folder from a log, tables and a teacher."),
        "check": ("set_up:check", "Validate the project: every fault at once."),
        "teacher fit": ("teacher.fit:fit", "Train a teacher on the sister product's log."),
        "set-up": ("set_up:set_up", "Do all that a project needs before its first event, once."),
        "features apply": ("set_up:apply", "Register the features with Feast."),
        "features materialize": ("set_up:materialize", "Load the batch tables into the online store."),
        "teacher backfill": ("teacher.backfill:backfill", "Fill the teacher's cache for a history."),
        "student bootstrap": ("student.bootstrap:bootstrap", "Distil a first version from the teacher alone."),
    },
    "run": {
        "replay": ("stream.stream:replay", "Send events from a file to Kafka."),
        "stream run": ("stream.stream:run", "Join impressions with their feedback into examples."),
        "stream archive": ("stream.stream:archive", "Write the examples to Parquet files."),
        "teacher run": ("teacher.run:run", "Score the stream's rows with the teacher into the cache."),
        "student train": ("student.train:train", "Learn from the examples, and publish versions."),
        "student serve": ("student.serve:serve", "Answer score requests from the champion version."),
        "student push": ("student.remote:push", "Copy the versions to an object store."),
        "student pull": ("student.remote:pull", "Follow the versions of an object store."),
        "features collect": ("set_up:collect", "Bring what was pushed into the batch tables."),
    },
    "look": {
        "look": ("look:look", "Tell what is in a log before anything runs."),
        "dlq ls": ("stream.dlq:ls", "Count, or print, what the stream could not use."),
        "teacher ls": ("teacher.generations:ls", "List what lies in the teacher's cache."),
        "teacher explain": ("teacher.explain:explain", "Print what the teacher sees of a row, and says of it."),
        "student ls": ("student.versions:ls", "List the published versions and their names."),
        "student show": ("student.versions:show", "Print a version, or in what it differs from another."),
    },
    "repair": {
        "dlq replay": ("stream.dlq:replay", "Put dead letters back into their topic."),
        "stream skip": ("stream.dlq:skip", "Let readers go past what cannot be decoded."),
        "student promote": ("student.versions:promote", "Let a version serve, and hold it."),
        "student rollback": ("student.versions:rollback", "Let the champion before this one serve again."),
        "student hold": ("student.versions:hold", "Let the champion serve on, whatever is published."),
        "student name": ("student.versions:name", "Give a version a name, which spares it from pruning."),
        "reset": ("reset:reset", "Remove what a project has left behind, to start over."),
    },
}
"""What one wants to do -> the words of a command -> where it is in graft/commands, and its line in the list."""
_COMMANDS = {
    words: LazyCommand(f"graft.commands.{target}", line, purpose)
    for purpose, commands in _BY_PURPOSE.items()
    for words, (target, line) in commands.items()
}
_NOUNS = {
    "features": "Register features with Feast, and fill the online store.",
    "teacher": "Train a teacher; score the target's rows with the teacher into the cache.",
    "student": "Learn, publish and serve the student.",
    "stream": "Validate and join events into examples.",
    "dlq": "List, show and put back the messages that the stream could not use.",
}

_LABORATORY = "it is part of the laboratory, install that with 'pip install ./lab' in graft's checkout"


@click.command(
    cls=LazyGroup,
    lazy_commands=_COMMANDS,
    nouns=_NOUNS,
    elsewhere=dict.fromkeys(("demo", "dev", "pair", "study"), _LABORATORY),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--project",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="The folder of graft.toml; overrides GRAFT_PROJECT (default: the current folder).",
)
@click.option("-v", "--verbose", is_flag=True, help="Log what helps to find a fault, too; overrides GRAFT_LOG_LEVEL.")
@click.option("-q", "--quiet", is_flag=True, help="Log warnings and errors alone; overrides GRAFT_LOG_LEVEL.")
@click.version_option(package_name="graft")
@click.pass_context
def cli(context: click.Context, project: Path | None, *, verbose: bool, quiet: bool) -> None:
    """Keep a small ranking model fresh by distilling a sister product's large one.

    A project folder describes one domain pair: the teacher's product and yours. Environment variables name the
    endpoints: GRAFT_KAFKA, GRAFT_REDIS_URL, GRAFT_VERSIONS and others, or GRAFT_..._FILE for a file with the value.

    Exit codes: 0 done or stopped as asked, 1 failed, 2 wrong usage or configuration, 3 data could not be fetched,
    130 and 143 ended by Ctrl-C and SIGTERM before it was done.

    Example: graft --project shop check
    """
    if verbose and quiet:
        raise click.UsageError("--verbose and --quiet exclude each other")
    context.obj = project


def main() -> None:
    """The console command."""
    atexit.register(_end_quickly)
    cli(prog_name="graft")


def _end_quickly() -> None:
    """Let the interpreter's end not look through all of torch and Feast, which takes half a second.

    Where torch brought Triton, as its CUDA builds do, that would print what it calls leaks on 28 lines.
    """
    if "triton" not in sys.modules:
        gc.freeze()
