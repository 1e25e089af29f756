"""`docker compose up` for real, on the fixtures pair: the proof that the images, health checks and volumes fit.

Run by `make test-compose`; left out of `make test`, which needs no Docker.
"""

import re
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.compose.stack import (
    COUNTS,
    PROJECT,
    ROOT,
    are_healthy,
    compose,
    described,
    first_impressions,
    inspected,
    metric,
    post_score,
    redis,
    score_of_first_impression,
    up,
)

pytestmark = [pytest.mark.compose, pytest.mark.timeout(1800)]

_PUBLISHED_WITHIN_SECONDS = 120.0


def wait_for_trained_version(user_id: int | str, item_ids: list[int | str]) -> dict:
    """The first reply of a version that has learnt from the replay: one later than the untrained v000001."""
    deadline = time.monotonic() + _PUBLISHED_WITHIN_SECONDS
    while time.monotonic() < deadline:
        reply = post_score(user_id, item_ids)
        if reply["model_version"] > "v000001":
            return reply
        time.sleep(0.5)
    pytest.fail(f"no version learnt from the replay within {_PUBLISHED_WITHIN_SECONDS} s; last reply {reply}")


def test_a_replayed_stream_is_learnt_published_and_answered_from(replayed: str) -> None:
    impressions = first_impressions(20)
    user_id, item_ids = impressions[0]["user_id"], [event["item_id"] for event in impressions]

    reply = wait_for_trained_version(user_id, item_ids)

    assert reply["degraded"] is False
    assert reply["item_ids"] == item_ids
    assert reply["scores"]
    for scores in reply["scores"].values():
        assert len(scores) == len(item_ids)
        assert len(set(scores)) > 1  # a learnt student tells items apart


def test_processes_of_one_service_need_no_names_and_do_not_throw_each_other_out(replayed: str) -> None:
    """The pair has one partition: of the streams and teachers one works, and the others wait to take over."""
    assert are_healthy(), [(one["Service"], one["Health"]) for one in described()]
    assert "has joined and taken over" not in compose("logs", "--no-color", "stream", "teacher")


def test_every_scorer_answers_behind_the_one_entry(replayed: str) -> None:
    for _ in range(30):
        score_of_first_impression()

    answered = [metric("scorer", 'graft_scorer_requests_total{status="200"}', number) for number in (1, 2, 3)]
    assert min(answered) > 0
    with pytest.raises(urllib.error.HTTPError, match="404"):  # of one scorer, which would tell nothing of the others
        urllib.request.urlopen("http://127.0.0.1:8080/metrics", timeout=5)


def test_no_request_fails_while_a_scorer_stops(replayed: str) -> None:
    stopping = subprocess.Popen(["docker", "stop", f"{PROJECT}-scorer-2"], stdout=subprocess.DEVNULL)
    try:
        replies = 0
        while stopping.poll() is None or replies < 50:
            assert score_of_first_impression()["scores"]
            replies += 1
    finally:
        stopping.wait(60)
        up()


def test_a_second_up_sets_nothing_up_again(replayed: str) -> None:
    up()
    assert (
        compose("logs", "--no-color", "--no-log-prefix", "--tail", "1", "setup")
        .rstrip()
        .endswith("simulated: is set up; nothing was to be done")
    )


def test_another_pair_on_used_volumes_is_refused_and_what_runs_goes_on(
    replayed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(ROOT / "fixtures/simulated", tmp_path / "shop")
    project = tmp_path / "shop/graft.toml"
    project.write_text(project.read_text().replace('name = "simulated"', 'name = "shop"'))
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(folder.stat().st_mode | 0o555)
    monkeypatch.setenv("GRAFT_PROJECT", str(tmp_path / "shop"))

    with pytest.raises(AssertionError, match="setup"):
        compose("run", "--rm", "-T", "replay", seconds=300)

    refusal = compose("logs", "--no-color", "--no-log-prefix", "--tail", "4", "setup")
    assert "is set up for the project 'simulated', and /pair is 'shop'; nothing was changed" in refusal
    assert "docker compose --project-name graft-shop up" in refusal
    assert score_of_first_impression()["scores"]


def test_redis_refuses_no_process_a_command_and_loses_no_transaction_at_a_restart(replayed: str) -> None:
    before = redis("dbsize")
    assert redis("acl", "log") == ""
    compose("restart", "redis")
    up()
    assert int(redis("dbsize")) >= int(before) > 0
    assert "CRITICAL" not in compose("logs", "--no-color", "redis")


def test_a_process_is_refused_what_it_does_not_need(stack: None) -> None:
    assert redis("acl", "dryrun", "scorer", "set", "graft:served:p:i", "1", "ex", "5") == "OK"
    for user, *command in (
        ("scorer", "set", "graft:teachers:x", "1"),
        ("scorer", "hset", "x", "y", "1"),
        ("learner", "hset", "x", "y", "1"),
        ("stream", "flushall"),
        ("teacher", "config", "get", "*"),
        ("operator", "acl", "list"),
    ):
        assert "has no permissions" in redis("acl", "dryrun", user, *command), (user, command)


def test_every_container_is_closed(replayed: str) -> None:
    for one in inspected():
        host, name = one["HostConfig"], one["Name"]
        assert host["ReadonlyRootfs"], name
        assert host["CapDrop"] == ["ALL"], name
        assert not host["CapAdd"], name
        assert "no-new-privileges:true" in host["SecurityOpt"], name
        assert min(host["Memory"], host["NanoCpus"], host["PidsLimit"]) > 0, name
        assert not host["Privileged"], name


def test_nothing_anonymous_is_mounted(replayed: str) -> None:
    names = {mount["Name"] for one in inspected() for mount in one["Mounts"] if mount["Type"] == "volume"}
    assert names == {f"{PROJECT}_{name}" for name in ("kafka", "redis", "project", "versions", "examples", "secrets")}


def test_no_secret_and_no_traceback_stands_in_the_logs(replayed: str) -> None:
    logs = compose("logs", "--no-color", "stream", "teacher", "learner", "scorer")

    assert "Traceback" not in logs
    assert not re.search(r"redis://[^\s/]*:[^\s/]*@", logs)


def test_ports_are_published_on_loopback_only(stack: None) -> None:
    published = {
        (p["URL"], one["Service"]) for one in described() for p in one["Publishers"] or [] if p["PublishedPort"]
    }
    assert published == {("127.0.0.1", "entry")}


def test_the_containers_do_not_run_as_root(stack: None) -> None:
    for service in COUNTS:
        assert compose("exec", "-T", service, "id", "-u").strip() != "0"
