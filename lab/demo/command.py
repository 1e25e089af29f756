"""``graft demo``."""

import shlex
import shutil
import sys
from pathlib import Path

import click
from rich.console import Console

from lab.demo.data import DataName, choose_data
from lab.demo.plan import FULL, QUICK
from lab.dev.signals import ended_by_signals
from runtime.errors import ConfigurationError, GraftError

_Folder = click.Path(file_okay=False, path_type=Path)
_MARK = ".graft-demo"


@click.command
@click.option(
    "--data",
    "asked",
    type=click.Choice(["movielens", "simulated"]),
    default="movielens",
    show_default=True,
    help="The domain pair; the simulated one takes over where MovieLens cannot be fetched.",
)
@click.option(
    "--movielens",
    "own_copy",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="DIR",
    help="Your own copy in GroupLens' layout: the folder of ml-1m/ and ml-100k/.",
)
@click.option("--quick", is_flag=True, help=f"Only the first {QUICK.impressions:,} impressions: under 2 min.")
@click.option("--out", type=_Folder, default="report", show_default=True, help="Where the report goes.")
@click.option(
    "--run", "run_folder", type=_Folder, default="run", show_default=True, help="Where the run's files go; made anew."
)
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON on standard output.")
def demo(asked: DataName, own_copy: Path | None, out: Path, run_folder: Path, *, quick: bool, as_json: bool) -> None:
    """Run the whole path in one terminal, and write a report of it.

    Starts an embedded Kafka and Redis (unless GRAFT_KAFKA and GRAFT_REDIS_URL name your own), makes a domain pair with
    its teacher, and runs each stage as its own process: replay, stream, teacher, learner, scorer. A stage that dies is
    started again; its log is in RUN/logs. Exit code 1 when a score request failed or an impression did not become
    exactly one example.

    Example: graft demo --quick
    """
    if asked == "simulated" and own_copy is not None:
        raise click.UsageError("--movielens DIR and --data simulated exclude each other")
    from lab.demo.run import Folders, run_demo

    console = Console(stderr=True)
    with ended_by_signals():
        folders = Folders(_new_run_folder(run_folder), out.resolve())
        data = choose_data(asked, own_copy, console)
        console.print(f"data: {data.note}", highlight=False, markup=False, soft_wrap=True)
        found = run_demo(QUICK if quick else FULL, data, folders, console, shlex.join(["graft", *sys.argv[1:]]))
    if as_json:
        click.echo(found.summary.model_dump_json(indent=1))
    if found.faults:
        raise GraftError("\n".join([*found.faults, f"what each process said: {folders.logs}"]))


def _new_run_folder(folder: Path) -> Path:
    """`folder`, empty but for a mark; only an earlier demo's folder is emptied. ConfigurationError for any other."""
    mark = folder / _MARK
    if folder.exists() and any(folder.iterdir()):
        if not mark.exists():
            raise ConfigurationError([f"--run: {folder} holds files that no demo made; name a new or an empty folder"])
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    mark.touch()
    return folder.resolve()
