"""docker-compose.secure.yml on the volumes of the stack: every process through SASL_SSL and rediss://."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compose.stack import (
    SECURE,
    are_healthy,
    await_that,
    compose,
    composed,
    inspected,
    later_events,
    learnt,
    learnt_at_rest,
    replay_command,
    score_of_first_impression,
    up,
)

pytestmark = [pytest.mark.compose, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def before(replayed: str) -> int:
    """How much was learnt without it."""
    return learnt_at_rest(3000)


@pytest.fixture(scope="module")
def secured(before: int) -> Iterator[None]:
    """The stack with TLS; without it again for the tests of other files."""
    up(*SECURE)
    yield
    up()


def test_every_process_works_through_tls_and_logins(before: int, secured: None, tmp_path: Path) -> None:
    impressions = later_events(tmp_path / "events.jsonl", days=5, lines=500)
    compose(*replay_command(tmp_path / "events.jsonl", files=SECURE), seconds=180)
    await_that(lambda: learnt() == before + impressions)
    assert are_healthy()
    assert score_of_first_impression()["degraded"] is False
    assert "simulated" in compose(*SECURE, "run", "--rm", "-T", "graft", "check", seconds=180)


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({"GRAFT_KAFKA_SASL_PASSWORD_FILE": "", "GRAFT_KAFKA_SASL_PASSWORD": "wrong"}, "refuses"),
        ({"GRAFT_KAFKA_SASL_USERNAME": "scorer"}, "refuses"),
        ({"GRAFT_KAFKA_SSL_CAFILE": ""}, "its certificate does not hold"),
    ],
    ids=["password", "user", "certificate"],
)
def test_who_has_no_login_or_does_not_know_the_authority_gets_one_line(
    secured: None, environment: dict[str, str], told: str
) -> None:
    options = [word for name, value in environment.items() for word in ("--env", f"{name}={value}")]
    done = composed(*SECURE, "run", "--rm", "-T", "--no-deps", *options, "replay", seconds=120)
    assert done.returncode == 1
    lines = [line for line in done.stderr.splitlines() if "kafka:9092" in line]
    assert told in lines[-1]
    assert "Traceback" not in done.stderr


def test_a_client_without_tls_is_refused_by_both(secured: None) -> None:
    plain = ("GRAFT_KAFKA_SECURITY_PROTOCOL", "GRAFT_KAFKA_SASL_MECHANISM", "GRAFT_KAFKA_SASL_USERNAME")
    files = ("GRAFT_KAFKA_SASL_PASSWORD_FILE", "GRAFT_KAFKA_SSL_CAFILE")
    options = [word for name in (*plain, *files) for word in ("--env", f"{name}=")]
    done = composed(*SECURE, "run", "--rm", "-T", "--no-deps", *options, "replay", seconds=120)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    redis = composed("exec", "-T", "redis", "redis-cli", "ping")
    assert "PONG" not in redis.stdout


def test_no_password_and_no_key_stands_in_an_environment_or_a_log(secured: None) -> None:
    shell = "cat /run/secrets/kafka_password"
    passwords = {compose("exec", "-T", name, "sh", "-c", shell).strip() for name in ("stream", "teacher", "learner")}
    assert len(passwords) == 3
    logs = compose("logs", "--no-color")
    for one in inspected():
        text = str(one["Config"])
        assert not any(password in text for password in passwords), one["Name"]
    assert not any(password in logs for password in passwords)
    assert "PRIVATE KEY" not in logs
