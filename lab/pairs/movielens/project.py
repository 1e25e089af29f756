"""Writes the MovieLens project folder without its teacher, or CSV files in the form that GroupLens publishes today.

`graft pair train-teacher` adds the teacher; the CSV files are a log for `graft init`.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from graft.fit.design import DesignInput, DesignTaste, Source, TeacherDesign
from lab.pairs.movielens.download import GENRES, TERMS, Catalogue, MovieLens, Table
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

_RATING_AFTER_MS, _LIKE_AFTER_MS, _LOVE_AFTER_MS = 1_500, 2_000, 2_500  # all inside the tasks' window of 10 s
_NO_HISTORY = {"user_rating_count": 0.0, "user_rating_mean": 3.58, "user_like_share": 0.575}  # the source's means
_GENDER_CODES = {"F": 1, "M": 2}


def write_movielens(folder: Path, movielens: MovieLens, events: int | None) -> int:
    """Write the pair to `folder`, with the first `events` ratings (all if None) as its stream; their number.

    Ratings come in the order of time, user, title. InvalidInputError when the folder is not empty.
    """
    ratings = movielens.target.ratings.sort_values(["time_s", "user", "title"], kind="stable")[:events]
    with new_folder(folder) as arriving:
        copy_template("lab.pairs.movielens", arriving)
        (arriving / "TERMS.txt").write_text(TERMS + "\n", encoding="utf-8")
        as_of = datetime.fromtimestamp(int(ratings["time_s"].min()), UTC)
        _write_features(arriving, movielens.target, as_of)
        write_events(arriving, _lines(ratings))
        write_json(arriving, "movie_ids.json", {title: code for code, title in enumerate(_titles(movielens.source), 1)})
        save_source(_source(movielens.source), arriving)
    return len(ratings)


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


def _titles(source: Catalogue) -> list[str]:
    """The source's movies in the order of their codes, which start at 1."""
    return sorted(source.movies["title"])


def _source(source: Catalogue) -> Source:
    """The source's ratings in time order, with its codes and with what it knew of a user before each rating."""
    ratings = source.ratings.sort_values(["time_s", "user", "title"], kind="stable")
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
