"""The command line: ``graft NOUN VERB``. Commands are imported when they run, so that each pays only for itself."""

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import click

from graft.errors import ConfigurationError, GraftError


class _Lazy(NamedTuple):
    """Where a command is defined (module:attribute), and its line in the list of commands."""

    target: str
    short_help: str


class LazyGroup(click.Group):
    """A group that imports a command when it is asked for, and prints a GraftError as lines without a traceback."""

    def __init__(self, *args: Any, lazy_commands: Mapping[str, _Lazy], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._lazy_commands = lazy_commands

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """The names in the order of the path that an event takes."""
        return list(self._lazy_commands)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        """The imported command; None where there is none of that name."""
        if cmd_name not in self._lazy_commands:
            return None
        module, _, attribute = self._lazy_commands[cmd_name].target.partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's
        """The list of commands without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, lazy.short_help) for name, lazy in self._lazy_commands.items()])

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; a GraftError becomes its exit code and one line per fault on standard error."""
        try:
            return super().invoke(ctx)
        except GraftError as error:
            for fault in error.faults if isinstance(error, ConfigurationError) else (error,):
                click.echo(f"error: {fault}", err=True)
            ctx.exit(error.exit_code)


_COMMANDS = {
    "check": _Lazy("graft.commands.check:check", "Validate the project: every fault at once."),
    "features": _Lazy("graft.commands.features:features", "Register features with Feast, fill the online store."),
    "replay": _Lazy("graft.commands.stream:replay", "Send events from a file to Kafka."),
    "stream": _Lazy("graft.commands.stream:stream", "Validate and join events into examples."),
    "teacher": _Lazy("graft.commands.teacher:teacher", "Score the target's rows with the teacher into the cache."),
    "student": _Lazy("graft.commands.student:student", "Learn, publish and serve the student."),
    "study": _Lazy("graft.commands.study:study", "A grid of learners over an example log, with tables and plots."),
    "demo": _Lazy("graft.demo.command:demo", "The whole path in one terminal, with a report."),
    "pair": _Lazy("graft.pairs.command:pair", "Make a domain pair to try graft on."),
}


@click.command(
    cls=LazyGroup,
    lazy_commands=_COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--project",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="The folder of graft.toml; overrides GRAFT_PROJECT (default: the current folder).",
)
@click.version_option(package_name="graft")
@click.pass_context
def cli(context: click.Context, project: Path | None) -> None:
    """Keep a small ranking model fresh by distilling a sister product's large one.

    A project folder describes one domain pair; environment variables name the endpoints: GRAFT_KAFKA, GRAFT_REDIS_URL,
    GRAFT_VERSIONS and others, or GRAFT_..._FILE for a file that holds the value.

    Exit codes: 0 done, 1 failed, 2 wrong usage or configuration.

    Example: graft --project my-pair check
    """
    context.obj = project


def main() -> None:
    """The console command."""
    cli(prog_name="graft")
