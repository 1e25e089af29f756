"""``graft reset``: removes what a project has left in Kafka, Redis and the version registry."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from graft.commands.output import echo_result, json_option
from graft.process import begin

if TYPE_CHECKING:
    from graft.commands.reset_parts import Part


@click.command
@click.option("--topics", is_flag=True, help="The project's topics with all records, the join's state among them.")
@click.option("--state", is_flag=True, help="What the join remembers, and how far the stream has read.")
@click.option("--aggregates", is_flag=True, help="The running aggregates in Redis.")
@click.option("--cache", is_flag=True, help="The teacher's logits and unshown rows in Redis.")
@click.option("--versions", is_flag=True, help="The published versions and their metrics' history.")
@click.option("--all", "everything", is_flag=True, help="All of these.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Say what would be removed; remove nothing.")
@json_option
@click.pass_obj
def reset(
    project_folder: Path | None, /, *, everything: bool, yes: bool, dry_run: bool, as_json: bool, **chosen: bool
) -> None:
    """Remove what the project has left in Kafka, Redis and GRAFT_VERSIONS, to start over.

    Says first what there is and what follows, then asks; where there is no terminal it needs --yes. Refuses while a
    process of the project works with it, but for the cache, which may be removed at any time. The example log, batch
    features and events are not touched.

    Example: graft reset --topics --aggregates --versions --dry-run
    """
    from graft.commands.reset_parts import PARTS, parts_of

    names = set(PARTS) if everything else {name for name, is_chosen in chosen.items() if is_chosen}
    if not names:
        raise click.UsageError("say what to remove: --topics, --state, --aggregates, --cache, --versions or --all")
    if not (yes or dry_run or sys.stdin.isatty()):
        raise click.UsageError("without a terminal that confirms, give --yes, or --dry-run to see what there is")
    parts = list(parts_of(begin(project_folder), names))
    found: dict[str, Any] = {part.name: part.found() for part in parts}
    lines = [_line(part, found[part.name]) for part in parts]
    if dry_run:
        echo_result([f"would remove {line}" for line in lines], {**found, "removed": False}, as_json=as_json)
        return
    for line in lines:
        click.echo(f"removes {line}", err=True)
    if not yes:
        click.confirm("Remove all of this?", abort=True, err=True)
    _remove(parts)
    echo_result([f"removed {', '.join(part.name for part in parts)}"], {**found, "removed": True}, as_json=as_json)


def _remove(parts: "list[Part]") -> None:
    """Remove every part, or none where one is in use. A reset that was killed can be repeated."""
    for part in parts:
        part.refuse_if_used()
    for part in reversed(parts):
        part.remove()


def _line(part: "Part", found: dict[str, int]) -> str:
    contents = ", ".join(f"{name}: {count:,}" for name, count in found.items()) or "nothing is there"
    return f"{part.name} ({contents}): {part.consequence}"
