"""Two small domains in the form of MovieLens' published files: they share films and no user; ids are their own."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from click.testing import CliRunner, Result

from graft.cli import cli

GENRES = ("Action", "Comedy", "Drama")
FILMS = 60
SECOND = 964_982_703


class Files(NamedTuple):
    """The files of one domain."""

    ratings: Path
    movies: Path
    users: Path

    def options(self, prefix: str = "--") -> list[str]:
        events, users, items = f"{prefix}events", f"{prefix}users", f"{prefix}items"
        return [events, str(self.ratings), users, str(self.users), items, str(self.movies)]


def write_domain(folder: Path, *, rows: int, users: int, start: int, seed: int, first_film: int = 0) -> Files:
    """Ratings of films by users; a user likes one genre by gender, and each film has an appeal of its own.

    Film 0 has id 1 where `first_film` is 0; else ids run on from there, so that equal ids are other films.
    """
    folder.mkdir(parents=True)
    draw, truth = random.Random(seed), random.Random(1)
    appeal = [truth.uniform(-1.5, 1.5) for _ in range(FILMS)]
    genre = [truth.choice(GENRES) for _ in range(FILMS)]
    ids = {film: 1 + (film + first_film) % FILMS for film in range(FILMS)}
    movies = [f'{ids[film]},"Film {film}, The",{genre[film]}|Any,{80 + film}' for film in range(FILMS)]
    (folder / "movies.csv").write_text("movieId,title,genres,length\n" + "\n".join(movies) + "\n")
    gender = {user: draw.choice("FM") for user in range(1, users + 1)}
    people = [f"{user},{gender[user]},{draw.randint(18, 70)}" for user in gender]
    (folder / "users.csv").write_text("userId,gender,age\n" + "\n".join(people) + "\n")
    lines = []
    for i in range(rows):
        user, film = draw.randint(1, users), draw.randrange(FILMS)
        taste = 1.0 if (genre[film] == "Action") == (gender[user] == "M") else -1.0
        rating = round(min(5, max(1, 3.2 + appeal[film] + taste + draw.gauss(0, 0.7))))
        lines.append(f"{user},{ids[film]},{rating},{start + 60 * i}")
    (folder / "ratings.csv").write_text("userId,movieId,rating,timestamp\n" + "\n".join(lines) + "\n")
    return Files(folder / "ratings.csv", folder / "movies.csv", folder / "users.csv")


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """The sister: 6,000 ratings."""
    folder = tmp_path_factory.mktemp("domains") / "source"
    return write_domain(folder, rows=6_000, users=120, start=SECOND, seed=2)


@pytest.fixture(scope="session")
def target(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """The target: 300 ratings, the first of which fall into the last hours of the source's."""
    folder = tmp_path_factory.mktemp("domains") / "target"
    return write_domain(folder, rows=300, users=25, start=SECOND + 60 * 5_900, seed=3, first_film=17)


@pytest.fixture
def graft() -> Callable[..., Result]:
    """Runs a command of graft in this process; never with a traceback."""

    def run(*arguments: str | Path) -> Result:
        result = CliRunner().invoke(cli, list(map(str, arguments)))
        assert result.exception is None or isinstance(result.exception, SystemExit), repr(result.exception)
        return result

    return run
