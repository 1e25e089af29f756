"""``graft reset`` as people use it: what it says, asks, removes and leaves."""

import json
from pathlib import Path
from unittest.mock import MagicMock

import pytest
from click.testing import CliRunner, Result

from features.push import pushed_rows
from graft.cli import cli
from lab.embedded import free_port
from runtime.redis import connect
from stream.config import StreamConfig, Topics
from stream.kafka import connection
from stream.kafka.groups import STREAM_GROUP
from stream.kafka.topics import ensure_topics
from student.versions.registry import Registry


@pytest.fixture
def environment(sound_project: Path, kafka: str, redis_url: str, topic_prefix: str) -> dict[str, str]:
    """A project with topics, logits of two projects, and a version."""
    with (sound_project / "graft.toml").open("a") as file:
        file.write(f'[stream]\ntopic_prefix = "{topic_prefix}"\n')
    ensure_topics(kafka, StreamConfig(topic_prefix=topic_prefix), Topics(prefix=topic_prefix))
    versions = sound_project / "versions"
    (versions / "v000007").mkdir(parents=True)
    (versions / "metrics").mkdir()
    (versions / "champion").write_text("v000007\n")
    (versions / "last_version").write_text("v000007\n")
    with connect(redis_url) as client:
        for key in ("logits:tiny:g1:1", "logits:tiny:g2:2", "unshown:tiny:g1:i1", "teachers:tiny:g1", "teachers:tiny"):
            client.set(f"graft:{key}", "x")
            client.set(f"graft:{key.replace('tiny', 'tiny2')}", "x")
    return {
        "GRAFT_PROJECT": str(sound_project),
        "GRAFT_KAFKA": kafka,
        "GRAFT_REDIS_URL": redis_url,
        "GRAFT_VERSIONS": str(versions),
    }


def reset(environment: dict[str, str], *options: str) -> Result:
    return CliRunner().invoke(cli, ["reset", *options], env=environment)


def keys_of(redis_url: str) -> set[bytes]:
    with connect(redis_url) as client:
        return set(client.keys("graft:*"))  # type: ignore[arg-type] # of a client that waits for no promise


def test_a_dry_run_says_what_there_is_and_what_follows_and_removes_nothing(
    environment: dict[str, str], redis_url: str
) -> None:
    before = keys_of(redis_url)
    done = reset(environment, "--cache", "--versions", "--topics", "--dry-run")
    assert done.exit_code == 0, done.output
    assert "would remove cache (keys of project tiny: 3): the student learns from labels alone" in done.stdout
    assert f"would remove versions (versions in {environment['GRAFT_VERSIONS']}: 1): a learner begins" in done.stdout
    assert "examples: 0" in done.stdout
    assert keys_of(redis_url) == before
    assert Registry(Path(environment["GRAFT_VERSIONS"])).champion() == "v000007"


def test_each_part_is_removed_on_its_own(environment: dict[str, str], redis_url: str) -> None:
    registry = Registry(Path(environment["GRAFT_VERSIONS"]))
    done = reset(environment, "--cache", "--yes", "--json")
    assert json.loads(done.stdout) == {"cache": {"keys of project tiny": 3}, "removed": True}
    assert len(left := keys_of(redis_url)) == 5
    assert all(b":tiny2" in key for key in left)
    assert registry.versions() == ["v000007"]

    assert reset(environment, "--versions", "--yes").exit_code == 0
    assert (registry.versions(), registry.champion(), registry.metrics_folder.exists()) == ([], None, False)
    assert (registry.folder / "last_version").read_text() == "v000007\n"  # no number is used twice

    done = reset(environment, "--topics", "--state", "--yes", "--json")
    assert list(json.loads(done.stdout)) == ["topics", "removed"]
    assert len(json.loads(done.stdout)["topics"]) == 10
    assert json.loads(reset(environment, "--topics", "--dry-run", "--json").stdout)["topics"] == {}


def test_without_a_terminal_or_an_answer_nothing_is_removed(environment: dict[str, str], redis_url: str) -> None:
    before = keys_of(redis_url)
    for options in (["--cache"], [], ["--yes"]):
        assert reset(environment, *options).exit_code == 2, options
    assert "give --yes, or --dry-run" in reset(environment, "--cache").output
    assert "say what to remove: --topics" in reset(environment, "--yes").output
    assert keys_of(redis_url) == before


def test_a_part_that_is_in_use_keeps_all_parts(environment: dict[str, str], redis_url: str) -> None:
    before = keys_of(redis_url)
    with Registry(Path(environment["GRAFT_VERSIONS"])).claim():
        done = reset(environment, "--cache", "--versions", "--yes")
    assert done.exit_code == 1
    assert "another learner publishes here" in str(done.exception) + done.output
    assert keys_of(redis_url) == before


def test_aggregates_stay_while_a_stream_pushes_them(
    environment: dict[str, str], topic_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for needs_an_applied_repository in ("spec.load_spec", "repo.store.view_sources", "push.pushed_rows.PushedRows"):
        monkeypatch.setattr(f"features.{needs_an_applied_repository}", MagicMock())
    pushed_rows.PushedRows.return_value.count.return_value = 7  # type: ignore[attr-defined]
    topics, group = Topics(prefix=topic_prefix), f"{topic_prefix}{STREAM_GROUP}"
    member = connection.group_member(environment["GRAFT_KAFKA"], group, "morning", auto_offset_reset="earliest")
    try:
        member.subscribe([topics.impressions])
        member.poll(timeout_ms=5_000)
        done = reset(environment, "--aggregates", "--yes")
    finally:
        member.close(autocommit=False)
    assert done.exit_code == 1
    assert f"still work with it: {group}/morning" in str(done.exception) + done.output


def test_only_what_is_asked_for_has_to_answer(environment: dict[str, str]) -> None:
    away = environment | {"GRAFT_KAFKA": f"127.0.0.1:{free_port()}", "GRAFT_REDIS_URL": "redis://127.0.0.1:1"}
    assert reset(away, "--versions", "--yes").exit_code == 0
    assert reset(away, "--cache", "--yes").exit_code == 1
