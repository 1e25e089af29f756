"""MovieLens as CSV files in the form that GroupLens publishes today: a log for `graft init`."""

from pathlib import Path

import pandas as pd

from lab.pairs.movielens.download import TERMS
from lab.pairs.movielens.files import Catalogue, MovieLens
from lab.pairs.project_folder import new_folder

SISTER = "sister"


def write_published(folder: Path, movielens: MovieLens, events: int | None) -> int:
    """Write ratings.csv, movies.csv and users.csv of the target, and those of the source into sister/.

    The target's are its first `events` ratings by time, all if None; their number. Movie ids are each data set's own.
    InvalidInputError when the folder is not empty.
    """
    with new_folder(folder) as arriving:
        (arriving / "TERMS.txt").write_text(TERMS + "\n", encoding="utf-8")
        (arriving / SISTER).mkdir()
        _write(arriving / SISTER, movielens.source, None)
        return _write(arriving, movielens.target, events)


def _write(folder: Path, catalogue: Catalogue, events: int | None) -> int:
    ids = {title: number for number, title in enumerate(catalogue.movies["title"], 1)}
    ratings = catalogue.ratings.sort_values(["time_s", "user", "title"], kind="stable")[:events]
    tables = {
        "ratings": {
            "userId": ratings["user"],
            "movieId": ratings["title"].map(ids),
            "rating": ratings["rating"],
            "timestamp": ratings["time_s"],
        },
        "movies": {
            "movieId": catalogue.movies["title"].map(ids),
            "title": catalogue.movies["title"],
            "genres": catalogue.movies["genres"].str.replace(" ", "|"),
        },
        "users": {
            "userId": catalogue.users["user"],
            "gender": catalogue.users["gender"],
            "age": catalogue.users["age"],
            "occupation": catalogue.users["occupation"],
        },
    }
    for name, columns in tables.items():
        pd.DataFrame(columns).to_csv(folder / f"{name}.csv", index=False, lineterminator="\n")
    return len(ratings)
