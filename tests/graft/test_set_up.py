"""``graft set-up``: a pair comes into its folder, Redis and registry once, and no other pair over it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from graft.project import load_project
from graft.set_up import MARK, _opened, set_up
from runtime.errors import GraftError
from runtime.folder import claim_folder
from runtime.redis import connect
from student.versions.registry import Registry

_FIXTURE = Path(__file__).parents[2] / "fixtures/simulated"
_FILES, _REDIS, _VERSION = "files of 'simulated'", "features and profiles in Redis", "a first version"
_CHANGED = f"{_FILES} (what runs has the former ones until it is restarted)"


class Place:
    """Where a pair is set up: a project folder, a registry and a Redis."""

    def __init__(self, folder: Path, redis_url: str) -> None:
        self.pair, self.project, self.versions = folder / "pair", folder / "project", folder / "versions"
        self.redis_url = redis_url
        shutil.copytree(_FIXTURE, self.pair)
        with (self.pair / "graft.toml").open("a") as file:
            file.write("\n[bootstrap]\nrows = 3000\nsteps = 100\n")

    def graft(self, *words: str) -> subprocess.CompletedProcess[str]:
        environment = {
            **os.environ,
            "GRAFT_PROJECT": str(self.project),
            "GRAFT_REDIS_URL": self.redis_url,
            "GRAFT_VERSIONS": str(self.versions),
        }
        argv = [sys.executable, "-m", "graft", *words]
        return subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)

    def done(self) -> list[str]:
        result = self.graft("set-up", str(self.pair), "--json")
        assert result.returncode == 0, result.stderr
        done: list[str] = json.loads(result.stdout)["done"]
        return done

    def changed(self, old: str, new: str) -> None:
        path = self.pair / "graft.toml"
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))


@pytest.fixture
def place(tmp_path: Path, redis_url: str) -> Place:
    return Place(tmp_path, redis_url)


@pytest.fixture
def steps() -> list[tuple[str, ...]]:
    return []


def _set_up(place: Place, steps: list[tuple[str, ...]]) -> list[str]:
    """As the command does, with steps that are only noted."""
    pair = load_project(place.pair)
    return set_up(
        pair, place.project, place.redis_url, Registry(place.versions), lambda _project, *words: steps.append(words)
    )


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_pair_is_set_up_once_and_what_is_lost_is_set_up_again(place: Place) -> None:
    assert place.done() == [_FILES, _REDIS, _VERSION]
    assert Registry(place.versions).latest() == "v000001"
    assert place.done() == []

    with connect(place.redis_url) as client:
        assert client.dbsize() > 100
        client.flushall()
    assert place.done() == [_REDIS]
    with connect(place.redis_url) as client:
        assert client.dbsize() > 100

    shutil.rmtree(place.versions)
    assert place.done() == [_VERSION]
    shutil.rmtree(place.project)
    assert place.done() == [_FILES]
    assert place.graft("check").returncode == 0

    place.changed("every_seconds = 2", "every_seconds = 7")
    assert place.done() == [_CHANGED, _REDIS]
    assert "every_seconds = 7" in (place.project / "graft.toml").read_text()

    before = (place.project / "graft.toml").read_text()
    place.changed('categorical = ["user_id", "item_id", ', 'categorical = ["item_id", ')
    refused = place.graft("set-up", str(place.pair))
    assert refused.returncode == 2
    assert "version v000001 was learnt with another setup" in refused.stderr
    assert "nothing was changed" in refused.stderr
    assert (place.project / "graft.toml").read_text() == before


@pytest.mark.parametrize("of_an_earlier_release", [False, True])
def test_another_pair_is_refused_before_anything_is_changed(
    place: Place, steps: list[tuple[str, ...]], *, of_an_earlier_release: bool
) -> None:
    _set_up(place, steps)
    steps.clear()
    if of_an_earlier_release:
        (place.project / MARK).unlink()
    place.changed('name = "simulated"', 'name = "shop"')

    refused = place.graft("set-up", str(place.pair))

    assert refused.returncode == 2
    assert "is set up for the project 'simulated'" in refused.stderr
    assert "docker compose --project-name graft-shop up" in refused.stderr
    assert 'name = "simulated"' in (place.project / "graft.toml").read_text()
    assert steps == []


def test_what_is_done_is_not_done_again(place: Place, steps: list[tuple[str, ...]]) -> None:
    assert _set_up(place, steps) == [_FILES, _REDIS, _VERSION]
    assert steps == [
        ("check",),
        ("features", "apply"),
        ("features", "materialize"),
        ("teacher", "backfill", "--profiles"),
        ("student", "bootstrap"),
    ]
    steps.clear()
    assert _set_up(place, steps) == [_VERSION]  # its step has published none here
    with connect(place.redis_url) as client:
        client.flushall()
    assert _set_up(place, steps) == [_REDIS, _VERSION]
    place.changed("every_seconds = 2", "every_seconds = 7")
    assert _set_up(place, steps) == [_CHANGED, _REDIS, _VERSION]


def test_a_pair_without_a_teacher_is_set_up_without_its_steps(place: Place, steps: list[tuple[str, ...]]) -> None:
    pair = load_project(place.pair).model_copy(update={"teacher": None})
    registry = Registry(place.versions)
    set_up(pair, place.project, place.redis_url, registry, lambda _project, *words: steps.append(words))
    assert steps == [("check",), ("features", "apply"), ("features", "materialize")]


def test_a_failed_step_is_made_again(place: Place, steps: list[tuple[str, ...]]) -> None:
    def failing(_project: Path, *words: str) -> None:
        if words == ("teacher", "backfill", "--profiles"):
            raise GraftError("no room")

    pair = load_project(place.pair)
    with pytest.raises(GraftError, match="no room"):
        set_up(pair, place.project, place.redis_url, Registry(place.versions), failing)
    assert _set_up(place, steps) == [_REDIS, _VERSION]
    assert steps == [("features", "materialize"), ("teacher", "backfill", "--profiles"), ("student", "bootstrap")]


@pytest.mark.parametrize(
    ("killed_in", "done"),
    [
        (("features", "apply"), [_CHANGED, _VERSION]),
        (("teacher", "backfill", "--profiles"), [_CHANGED, _REDIS, _VERSION]),
    ],
)
def test_who_goes_back_after_a_set_up_that_was_killed_gets_what_was_there_before(
    place: Place, steps: list[tuple[str, ...]], killed_in: tuple[str, ...], done: list[str]
) -> None:
    """A teacher is changed, the set-up ends in the middle, and the operator puts the former one back."""

    def killed(_project: Path, *words: str) -> None:
        if words == killed_in:
            raise KeyboardInterrupt

    _set_up(place, steps)
    (place.pair / "new.py").write_text("")
    place.changed("every_seconds = 2", "every_seconds = 7")
    with pytest.raises(KeyboardInterrupt):
        set_up(load_project(place.pair), place.project, place.redis_url, Registry(place.versions), killed)
    place.changed("every_seconds = 7", "every_seconds = 2")
    (place.pair / "new.py").unlink()

    assert _set_up(place, steps) == done
    assert (place.project / "graft.toml").read_bytes() == (place.pair / "graft.toml").read_bytes()
    assert not (place.project / "new.py").exists()


def test_a_file_that_the_pair_no_longer_has_goes_and_what_graft_has_made_stays(
    place: Place, steps: list[tuple[str, ...]]
) -> None:
    (place.pair / "old.py").write_text("")
    _set_up(place, steps)
    made = place.project / "feature_repo/data/made.parquet"
    made.write_text("rows")
    (place.pair / "old.py").unlink()

    _set_up(place, steps)

    assert not (place.project / "old.py").exists()
    assert made.read_text() == "rows"


def test_two_set_ups_of_a_folder_do_not_work_at_once(place: Place, steps: list[tuple[str, ...]]) -> None:
    with claim_folder(place.project, "taken"), pytest.raises(GraftError, match="another 'graft set-up' works there"):
        _set_up(place, steps)


def test_a_file_that_cannot_be_read_is_named(place: Place, steps: list[tuple[str, ...]]) -> None:
    (place.pair / "truth.json").unlink()
    (place.pair / "truth.json").symlink_to("nothing")
    _set_up(place, steps)  # a link to nothing is no file
    with pytest.raises(GraftError, match=r"truth\.json: cannot be read: No such file.*chmod -R"):
        _opened(place.pair / "truth.json")
