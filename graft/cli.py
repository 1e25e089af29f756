"""The command line: ``graft NOUN VERB``. A command is imported when it runs."""

import atexit
import gc
import sys
from pathlib import Path

import click

from graft.lazy_group import LazyCommand, LazyGroup
from graft.log_level import LOG_LEVEL

_COMMANDS = {
    "init": LazyCommand("graft.commands.init:init", "Write a project folder from a log, tables and a teacher."),
    "look": LazyCommand("graft.commands.look:look", "Tell what is in a log before anything runs."),
    "check": LazyCommand("graft.commands.check:check", "Validate the project: every fault at once."),
    "features": LazyCommand("graft.commands.features:features", "Register features with Feast, fill the online store."),
    "set-up": LazyCommand("graft.commands.set_up:set_up", "Do all that a pair needs before its first event, once."),
    "replay": LazyCommand("graft.commands.stream:replay", "Send events from a file to Kafka."),
    "stream": LazyCommand("graft.commands.stream:stream", "Validate and join events into examples."),
    "dlq": LazyCommand("graft.commands.dlq:dlq", "List, show and put back what the stream could not use."),
    "teacher": LazyCommand(
        "graft.commands.teacher:teacher", "Score the target's rows with the teacher into the cache."
    ),
    "student": LazyCommand("graft.commands.student:student", "Learn, publish and serve the student."),
    "reset": LazyCommand("graft.commands.reset:reset", "Remove what a project has left behind, to start over."),
}

_LABORATORY = "it is part of the laboratory, install that with 'pip install ./lab' in graft's checkout"


@click.command(
    cls=LazyGroup,
    lazy_commands=_COMMANDS,
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

    A project folder describes one domain pair; environment variables name the endpoints: GRAFT_KAFKA, GRAFT_REDIS_URL,
    GRAFT_VERSIONS and others, or GRAFT_..._FILE for a file that holds the value.

    Exit codes: 0 done or stopped as asked, 1 failed, 2 wrong usage or configuration, 3 data could not be fetched,
    130 and 143 ended by Ctrl-C and SIGTERM before it was done.

    Example: graft --project my-pair check
    """
    if verbose and quiet:
        raise click.UsageError("--verbose and --quiet exclude each other")
    context.obj = project
    if verbose or quiet:
        context.meta[LOG_LEVEL] = "DEBUG" if verbose else "WARNING"


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
