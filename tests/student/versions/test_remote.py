"""The registry in an object store: what is pushed is pulled whole, and one learner's alone."""

import json
from pathlib import Path

import fsspec
import pytest

from runtime.errors import ConfigurationError, GraftError, ServiceUnavailableError
from student.versions.names import CHAMPION
from student.versions.registry import Registry
from student.versions.remote import RemoteRegistry
from student.versions.version_folder import LEARNER_FILE, MODEL_FILE, VersionError
from tests.student.versions.promoted import promote
from tests.student.versions.test_registry import publish


@pytest.fixture
def learner(tmp_path: Path) -> Registry:
    registry = Registry(tmp_path / "versions")
    registry.learner_id()
    return registry


@pytest.fixture
def scorer(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "pulled")


@pytest.fixture
def url(tmp_path: Path) -> str:
    """Of a store in memory, which no other test uses."""
    return f"memory://{tmp_path.name}/shop"


def test_a_scorers_folder_follows_versions_and_names(learner: Registry, scorer: Registry, url: str) -> None:
    first, second = publish(learner), publish(learner, weight=2.5)
    assert RemoteRegistry(url).push(learner) == [first, second]

    follower = RemoteRegistry(url)
    assert follower.follow(scorer) == [first, second]
    assert scorer.champion() == second
    assert scorer.load_model(second)[1]["head.like.bias"] == 2.5
    assert not (scorer.folder / second / LEARNER_FILE).exists()

    promote(learner, first)
    third = publish(learner)
    assert RemoteRegistry(url).push(learner) == [third]
    assert follower.follow(scorer) == [third]
    assert (scorer.champion(), scorer.latest()) == (learner.champion(), third)
    assert follower.follow(scorer) == []


def test_what_is_pruned_and_unnamed_leaves_the_store_and_the_folder(
    learner: Registry, scorer: Registry, url: str
) -> None:
    remote, follower = RemoteRegistry(url), RemoteRegistry(url)
    first = publish(learner)
    learner.names.move("kept", first, by="a test", why="a test")
    for _ in range(6):
        publish(learner)
    remote.push(learner)
    follower.follow(scorer)
    removed = learner.prune(2)
    learner.remove_name("kept", by="a test", why="a test")

    assert removed
    assert remote.push(learner) == []
    assert follower.follow(scorer) == []
    assert scorer.versions() == learner.versions()
    assert "kept" not in scorer.names.all()
    store, root = fsspec.url_to_fs(url)
    assert {path.rpartition("/")[2] for path in store.ls(f"{root}/versions", detail=False)} >= set(learner.versions())
    assert not any(store.exists(f"{root}/versions/{version}/{MODEL_FILE}") for version in removed)


def test_a_learner_goes_on_from_what_was_pushed_after_its_disk_is_lost(
    learner: Registry, tmp_path: Path, url: str
) -> None:
    versions = [publish(learner, examples) for examples in (1, 2, 3)]
    promote(learner, versions[1])
    learner.names.move(CHAMPION, versions[1], by="a test", why="a test", hold=True)
    RemoteRegistry(url).push(learner)

    new = Registry(tmp_path / "new")
    with new.claim():
        assert RemoteRegistry(url).restore(new) == versions
    assert new.load_learner(versions[2])[2] == {"n": 3}
    assert (new.champion(), new.learner_id()) == (versions[1], learner.learner_id())
    assert new.names.held() == learner.names.held()
    assert new.names.history() == learner.names.history()
    assert publish(new) == "v000004"
    assert RemoteRegistry(url).push(new) == ["v000004"]


def test_another_learners_versions_are_neither_overwritten_nor_mixed(
    learner: Registry, tmp_path: Path, url: str
) -> None:
    publish(learner)
    RemoteRegistry(url).push(learner)
    other = Registry(tmp_path / "other")
    other.learner_id()
    publish(other, weight=9.0)

    with pytest.raises(GraftError, match="has the versions of another learner"):
        RemoteRegistry(url).push(other)
    with pytest.raises(GraftError, match="has versions; set GRAFT_VERSIONS to an empty folder"):
        RemoteRegistry(url).restore(other)
    with pytest.raises(GraftError, match="has versions that were not pulled from"):
        RemoteRegistry(url).follow(other)
    assert other.load_model("v000001")[1]["head.like.bias"] == 9.0


def test_a_follower_takes_the_versions_of_a_student_that_began_anew(
    learner: Registry, scorer: Registry, tmp_path: Path, url: str
) -> None:
    publish(learner)
    RemoteRegistry(url).push(learner)
    follower = RemoteRegistry(url)
    follower.follow(scorer)
    anew = Registry(tmp_path / "anew")
    anew.learner_id()
    publish(anew, weight=7.0)
    store, root = fsspec.url_to_fs(url)
    store.rm(root, recursive=True)
    RemoteRegistry(url).push(anew)

    assert follower.follow(scorer) == ["v000001"]
    assert scorer.load_model("v000001")[1]["head.like.bias"] == 7.0


def test_an_empty_registry_removes_nothing(learner: Registry, tmp_path: Path, url: str) -> None:
    publish(learner)
    RemoteRegistry(url).push(learner)
    assert RemoteRegistry(url).push(Registry(tmp_path / "lost")) == []
    index = RemoteRegistry(url).index()
    assert index is not None
    assert index.versions.keys() == {"v000001"}


def test_a_damaged_object_is_refused_and_the_versions_before_it_stay(
    learner: Registry, scorer: Registry, url: str
) -> None:
    publish(learner)
    remote, follower = RemoteRegistry(url), RemoteRegistry(url)
    remote.push(learner)
    follower.follow(scorer)
    second = publish(learner)
    remote.push(learner)
    store, root = fsspec.url_to_fs(url)
    store.pipe_file(f"{root}/versions/{second}/{MODEL_FILE}", b"other")

    with pytest.raises(VersionError, match="sha256 must be"):
        follower.follow(scorer)
    assert (scorer.versions(), scorer.champion()) == (["v000001"], "v000001")


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"format": 2}, "format"),
        ({"versions": {"../../x": {}}}, "versions"),
        ({"lines": {"../../etc/passwd": "x"}}, "lines"),
        ({"lines": {"names/../../x": "x"}}, "lines"),
        ({"history": ["../history.jsonl"]}, "history"),
    ],
)
def test_an_index_that_is_not_ours_is_refused(
    learner: Registry, scorer: Registry, url: str, change: dict[str, object], fault: str
) -> None:
    publish(learner)
    RemoteRegistry(url).push(learner)
    store, root = fsspec.url_to_fs(url)
    index = json.loads(store.cat_file(f"{root}/index.json")) | change
    store.pipe_file(f"{root}/index.json", json.dumps(index).encode())

    with pytest.raises(GraftError, match=rf"index.json: {fault}"):
        RemoteRegistry(url).follow(scorer)
    assert scorer.versions() == []


def test_an_unknown_kind_of_url_and_a_store_that_is_away_say_so(learner: Registry, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="nowhere://x"):
        RemoteRegistry("nowhere://x")
    publish(learner)
    (tmp_path / "file").write_text("")
    with pytest.raises(ServiceUnavailableError, match="does not answer"):
        RemoteRegistry(f"file://{tmp_path}/file/below").push(learner)
