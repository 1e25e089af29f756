"""Small projects of one's own, as `graft init` writes them."""

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from graft.cli import cli
from tests.graft.init.conftest import write_teacher

RATINGS, USERS, ITEMS = 300, 25, 40


@pytest.fixture(scope="session")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a log of ratings and tables of users and movies."""
    draw = random.Random(5)
    folder = tmp_path_factory.mktemp("log")
    liked = {user: draw.randrange(3) for user in range(1, USERS + 1)}
    rows = ["userId,movieId,rating,timestamp"]
    for i in range(RATINGS):
        user, movie = draw.randint(1, USERS), draw.randint(1, ITEMS)
        rating = draw.randint(4, 5) if movie % 3 == liked[user] else draw.randint(1, 4)
        rows.append(f"{user},{movie},{rating},{964_982_703 + 60 * i}")
    (folder / "ratings.csv").write_text("\n".join(rows) + "\n")
    users = [f"{user},{draw.randint(18, 70)}" for user in liked]
    (folder / "users.csv").write_text("\n".join(["userId,age", *users]) + "\n")
    movies = [f"{movie},{['Comedy', 'Drama', 'War'][movie % 3]},{80 + movie}" for movie in range(1, ITEMS + 1)]
    (folder / "movies.csv").write_text("\n".join(["movieId,genre,length", *movies]) + "\n")
    return folder


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    """A teacher of which nothing can be learnt: it says the same of every row."""
    return write_teacher(tmp_path / "sister.onnx", {"age": ("float", []), "length": ("float", [])}, ["like"])


@pytest.fixture(scope="session")
def _written(tmp_path_factory: pytest.TempPathFactory, log: Path) -> Path:
    return _init(tmp_path_factory.mktemp("written"), "--events", log / "ratings.csv")


@pytest.fixture
def shop(tmp_path: Path, _written: Path) -> Path:
    """What `graft init` wrote from the log of ratings alone."""
    return Path(shutil.copytree(_written, tmp_path / "shop"))


@pytest.fixture
def project(tmp_path: Path) -> Callable[..., Path]:
    """Runs `graft init` into tmp_path/shop."""
    return lambda *arguments: _init(tmp_path, *arguments)


def _init(parent: Path, *arguments: str | Path) -> Path:
    folder = parent / "shop"
    done = CliRunner().invoke(cli, ["init", str(folder), *map(str, arguments), "--yes"])
    assert done.exit_code == 0, done.output
    return folder
