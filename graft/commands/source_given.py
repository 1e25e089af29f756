"""The options of ``graft init`` that name the source's log, on which a teacher is trained."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from graft.commands.options import columns_given

if TYPE_CHECKING:
    from graft.fit.domain import Domain

Command = Callable[..., Any]


def source_options(command: Command) -> Command:
    """``--source-events`` and what goes with it, as the arguments `source_events` and so on."""
    options = [
        click.option("--source-events", metavar="F", help="No teacher file? The sister's log, to train one on."),
        click.option("--source-users", metavar="T", help="A table of the sister's users."),
        click.option("--source-items", metavar="T", help="A table of the sister's items."),
        click.option("--source-map", multiple=True, metavar="ROLE=COLUMN", help="As --map, of the sister's log."),
        click.option("--source-label", multiple=True, metavar="'NAME = ...'", help="As --label, of the sister's log."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def check_source_options(source: dict[str, Any], teacher: Any) -> None:
    """UsageError where options do not go together."""
    events = source["source_events"]
    if events and teacher:
        raise click.UsageError("--teacher and --source-events exclude each other: a teacher is there, or is trained")
    alone = [name for name, value in source.items() if value and not events]
    if alone:
        raise click.UsageError(f"--{alone[0].replace('_', '-')} needs --source-events")


def source_given(source: dict[str, Any]) -> "Domain | None":
    """What the options name, read; None where they name nothing."""
    from graft.fit.domain import SourceFiles, read_source
    from graft.init.roles import Given

    if not source["source_events"]:
        return None
    files = SourceFiles(source["source_events"], source["source_users"], source["source_items"])
    return read_source(files, Given(columns_given(source["source_map"]), source["source_label"]), "--source-")
