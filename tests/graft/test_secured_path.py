"""Every process through SASL_SSL and rediss://, and what each says of a wrong password or certificate."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from lab.embedded import free_port
from runtime.child import start_child, stop_child
from student.versions.registry import Registry
from tests.graft.test_path import _EVENTS, _FAST, _SENT, _score_by, _wait_for_examples
from tests.secured import PASSWORD, USER, Certificates, SecuredKafka, SecuredRedis

pytestmark = [pytest.mark.kafka_home, pytest.mark.slow, pytest.mark.timeout(400)]
_GRAFT = [sys.executable, "-m", "graft", "-v"]
_PROCESSES = ("stream run", "teacher run", "student train", "stream archive LOG", "student serve")
_WRONG = "hunter2"
Environment = dict[str, str]


@pytest.fixture(scope="module")
def redis(certificates: Certificates) -> Iterator[SecuredRedis]:
    with SecuredRedis(certificates, certificates.server, mutual=True) as made:
        yield made


@pytest.fixture
def environment(
    sound_project: Path,
    secured_kafka: SecuredKafka,
    redis: SecuredRedis,
    certificates: Certificates,
    topic_prefix: str,
    tmp_path: Path,
) -> Environment:
    """Of a project with its events and its batch table."""
    toml = (sound_project / "graft.toml").read_text().replace("window_seconds = 60", "window_seconds = 1")
    (sound_project / "graft.toml").write_text(toml + _FAST.replace("PREFIX", topic_prefix))
    (sound_project / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in _EVENTS))
    (sound_project / "feature_repo/data").mkdir()
    users = {
        "user_id": range(4),
        "age": [20.0, 30.0, 40.0, 50.0],
        "event_timestamp": pd.Timestamp("2025-01-01", tz="UTC"),
    }
    pd.DataFrame(users).astype({"age": "float32"}).to_parquet(sound_project / "feature_repo/data/users.parquet")
    for name, secret in (("kafka", PASSWORD), ("redis", redis.url), ("wrong", _WRONG)):
        (tmp_path / f"{name}.secret").write_text(secret + "\n")
    client = certificates.client
    return {
        **os.environ,
        "GRAFT_PROJECT": str(sound_project),
        "GRAFT_VERSIONS": str(sound_project / "versions"),
        "GRAFT_LOG_FORMAT": "json",
        "GRAFT_HTTP_PORT": str(free_port()),
        "GRAFT_KAFKA": secured_kafka.address("SASL_SSL"),
        "GRAFT_KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
        "GRAFT_KAFKA_SASL_MECHANISM": "SCRAM-SHA-512",
        "GRAFT_KAFKA_SASL_USERNAME": USER,
        "GRAFT_KAFKA_SASL_PASSWORD_FILE": str(tmp_path / "kafka.secret"),
        "GRAFT_KAFKA_SSL_CAFILE": str(certificates.ca),
        "GRAFT_REDIS_URL_FILE": str(tmp_path / "redis.secret"),
        "GRAFT_REDIS_SSL_CA_CERTS": str(certificates.ca),
        "GRAFT_REDIS_SSL_CERTFILE": str(client.certificate),
        "GRAFT_REDIS_SSL_KEYFILE": str(client.key),
    }


def graft(environment: Environment, *arguments: str) -> Any:
    done = subprocess.run(
        [*_GRAFT, *arguments, "--json"], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    told(done.stderr)
    assert PASSWORD not in done.stdout
    return json.loads(done.stdout)


def told(log: str) -> list[dict[str, Any]]:
    """Its lines, each of which is one JSON object without a secret."""
    assert PASSWORD not in log
    assert _WRONG not in log
    return [json.loads(line) for line in log.splitlines()]


@contextmanager
def running(environment: Environment, folder: Path) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    children = {}
    for name in _PROCESSES:
        with (folder / f"{name}.log").open("wb") as log:
            children[name] = start_child([*_GRAFT, *name.split()], cwd=folder, env=environment, stdout=log, stderr=log)
    try:
        yield children
    finally:
        codes = [stop_child(child, 30) for child in children.values()]
    assert codes == [0] * len(children), [path.read_text()[-1000:] for path in folder.glob("*.log")]


def test_every_process_works_over_secured_transports(environment: Environment, sound_project: Path) -> None:
    assert graft(environment, "check")["name"] == "tiny"
    assert graft(environment, "features", "apply")["dense_columns"] == 1
    assert graft(environment, "features", "materialize") == {"users": 4}
    with running(environment, sound_project):
        sent = graft(environment, "replay", str(sound_project / "events.jsonl"))
        assert {name: sent[name] for name in _SENT} == _SENT
        newest = _wait_for_examples(Registry(sound_project / "versions"), 4)
        assert graft(environment, "teacher", "backfill", "--since", "1d")["rows"] == 4
        assert graft(environment, "dlq", "ls")[0]["count"] == 1
        assert graft(environment, "student", "ls")[-1]["version"] >= newest
        assert _score_by(newest, int(environment["GRAFT_HTTP_PORT"]))["degraded"] is False
        logs = {name: told((sound_project / f"{name}.log").read_text()) for name in _PROCESSES}
    told_by = {line["process"] for lines in logs.values() for line in lines}
    assert told_by >= {"stream run", "teacher run", "student train", "student serve"}
    assert any(line.get("version") == newest for line in logs["student train"])


def ends(environment: Environment, folder: Path, commands: list[str], why: str) -> None:
    """Each command ends by itself with 1, and the last line says why."""
    for command in commands:
        argv = [*_GRAFT, *command.split()]
        done = subprocess.run(
            argv, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 1, (command, done.stderr[-1000:])
        last = told(done.stderr)[-1]
        assert last["level"] == "ERROR", (command, last)
        assert why in last["message"], (command, last)


@pytest.fixture
def applied(environment: Environment) -> Environment:
    graft(environment, "features", "apply")
    return environment


def test_a_wrong_password_of_kafka_ends_each_process(applied: Environment, sound_project: Path, tmp_path: Path) -> None:
    wrong = applied | {"GRAFT_KAFKA_SASL_PASSWORD_FILE": str(tmp_path / "wrong.secret")}
    commands = [*_PROCESSES[:4], "replay events.jsonl", "dlq ls", "teacher backfill --since 1d"]
    ends(wrong, sound_project, commands, "it refuses the login of GRAFT_KAFKA_SASL_USERNAME=graft")


def test_an_authority_that_has_not_signed_ends_each_process(
    applied: Environment, sound_project: Path, certificates: Certificates
) -> None:
    other = str(certificates.other_ca)
    wrong = applied | {"GRAFT_KAFKA_SSL_CAFILE": other, "GRAFT_REDIS_SSL_CA_CERTS": other}
    commands = [*_PROCESSES, "replay events.jsonl", "features materialize"]
    ends(wrong, sound_project, commands, "its certificate does not hold")


def test_a_wrong_password_of_redis_ends_each_process(
    applied: Environment, sound_project: Path, redis: SecuredRedis, tmp_path: Path
) -> None:
    (tmp_path / "redis.secret").write_text(redis.url.replace(PASSWORD, _WRONG))
    commands = ["stream run", "teacher run", "student train", "student serve", "features materialize"]
    ends(applied, sound_project, commands, f"Redis at rediss://localhost:{redis.port}/0 refuses this client")
