"""docker-compose.yml against the program, and against what every container must be; `make test-compose` brings it up.

Where there is Docker, the resolved file is read (`docker compose config`), else the YAML with its anchors.
"""

import json
import re
import shutil
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import pytest
import yaml

from graft.cli import cli
from graft.settings import load_settings
from runtime.redis import parse_url
from tests.scripts import script

_ROOT = Path(__file__).parents[1]
_RUNNING = ["stream", "teacher", "learner", "archive", "scorer"]
_ONE_SHOTS = ["secrets", "setup", "replay", "graft", "dashboard"]


def resolved() -> dict[str, Any]:
    """What compose makes of the file, with the services of all profiles."""
    compose = ["docker", "compose", "--profile", "*", "config", "--format", "json"]
    if shutil.which("docker"):
        done = subprocess.run(compose, cwd=_ROOT, capture_output=True, check=False)
        if done.returncode == 0:
            found: dict[str, Any] = json.loads(done.stdout)
            return found
    read: dict[str, Any] = yaml.safe_load((_ROOT / "docker-compose.yml").read_text())
    return read


_FILE = resolved()
_SERVICES: dict[str, dict[str, Any]] = _FILE["services"]
_GRAFT = {name: service for name, service in _SERVICES.items() if service["image"] in {"graft", "graft-scorer"}}


def volumes(service: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The mounts by their place in the container."""
    mounts = [_long(mount) if isinstance(mount, str) else mount for mount in service.get("volumes", [])]
    return {mount["target"]: mount for mount in mounts}


def _long(mount: str) -> dict[str, Any]:
    """The long form of SOURCE:TARGET[:ro]; a source may have a variable's default in it."""
    source, target, *options = re.sub(r"\$\{[^}]*:-([^}]*)\}", r"\1", mount).split(":")
    return {"source": source, "target": target, "read_only": "ro" in options}


def tmpfs(service: dict[str, Any]) -> set[str]:
    return {entry.partition(":")[0] for entry in service.get("tmpfs", [])}


def published(service: dict[str, Any]) -> set[str]:
    return {
        port.rpartition(":")[0].partition(":")[0] if isinstance(port, str) else port["host_ip"]
        for port in service.get("ports", [])
    }


def faults(name: str, service: dict[str, Any]) -> list[str]:
    """What a container lacks of what closes it."""
    closed = {
        "its root can be written": service.get("read_only") is True,
        "it has no /tmp of its own": "/tmp" in tmpfs(service),
        "it keeps capabilities": service.get("cap_drop") == ["ALL"] and not service.get("cap_add"),
        "it may gain privileges": "no-new-privileges:true" in service.get("security_opt", []),
        "its processes have no limit": int(service.get("pids_limit", 0)) > 0,
        "its memory has no limit": bool(service.get("mem_limit")),
        "its processor time has no limit": float(service.get("cpus", 0)) > 0,
        "its log has no limit": "max-size" in service.get("logging", {}).get("options", {}),
        "it is privileged or shares the host": not any(
            service.get(key) for key in ("privileged", "pid", "ipc", "devices")
        ),
        "it reaches other networks than its own": bool(service.get("networks"))
        or service.get("network_mode") == "none",
        "it reaches Docker": "docker.sock" not in str(service.get("volumes")),
        "a port is open to other machines": published(service) <= {"127.0.0.1"},
        "a password stands in its environment": not re.search(r"://[^/\s]*@", str(service.get("environment", ""))),
    }
    return [f"{name}: {fault}" for fault, holds in closed.items() if not holds]


@pytest.mark.parametrize("name", sorted(_SERVICES))
def test_a_container_is_closed(name: str) -> None:
    assert faults(name, _SERVICES[name]) == []


def test_only_the_entry_and_grafana_reach_the_host_and_the_world() -> None:
    assert {name for name, service in _SERVICES.items() if service.get("ports")} == {"entry", "grafana"}
    open_networks = {name for name, network in _FILE["networks"].items() if not (network or {}).get("internal")}
    assert open_networks == {"outside"}
    assert {name for name, service in _SERVICES.items() if "outside" in (service.get("networks") or [])} == {
        "entry",
        "grafana",
    }


def test_a_container_has_no_network_that_it_does_not_need() -> None:
    assert set(_SERVICES["scorer"]["networks"]) == {"scores", "features"}
    assert set(_SERVICES["setup"]["networks"]) == {"features"}
    assert set(_SERVICES["replay"]["networks"]) == {"events"}
    assert set(_SERVICES["entry"]["networks"]) == {"scores", "outside"}
    assert set(_SERVICES["grafana"]["networks"]) == {"observe", "outside"}
    observe = {"prometheus", "grafana", "dashboard"}
    assert {name for name, service in _SERVICES.items() if "observe" in service.get("networks", [])} == observe


@pytest.mark.parametrize("name", sorted(_SERVICES))
def test_every_mount_has_a_name_so_that_nothing_stays_behind(name: str) -> None:
    assert all(mount["source"] for mount in volumes(_SERVICES[name]).values())
    assert "VOLUME" not in (_ROOT / "Dockerfile").read_text()
    made_by_image = {
        "kafka": {"/etc/kafka/secrets", "/mnt/shared/config", "/var/lib/kafka/data"},
        "redis": {"/data"},
        "prometheus": {"/prometheus"},
    }.get(name, set())
    assert made_by_image <= volumes(_SERVICES[name]).keys() | tmpfs(_SERVICES[name])


@pytest.mark.parametrize("name", ["stream", "teacher", "learner", "archive", "scorer", "setup"])
def test_a_process_sees_its_own_password_alone(name: str) -> None:
    mount = volumes(_SERVICES[name])["/run/secrets"]
    assert (mount["source"], mount["read_only"], mount["volume"]["subpath"]) == ("secrets", True, name)
    assert _SERVICES[name]["environment"]["GRAFT_REDIS_URL_FILE"] == "/run/secrets/redis_url"


@pytest.mark.parametrize("name", ["entry", "replay"])
def test_what_needs_no_redis_has_no_password(name: str) -> None:
    assert "secrets" not in {mount["source"] for mount in volumes(_SERVICES[name]).values()}


def test_compose_runs_every_process_of_the_path() -> None:
    assert set(_GRAFT) == {*_RUNNING, *_ONE_SHOTS}


@pytest.mark.parametrize("name", sorted(set(_GRAFT) - {"secrets", "dashboard"}))
def test_the_settings_of_a_service_exist(name: str, tmp_path: Path) -> None:
    environment = {key: str(value) for key, value in _GRAFT[name]["environment"].items() if key != "GRAFT_PAIR"}
    if "GRAFT_REDIS_URL_FILE" in environment:
        (tmp_path / "redis_url").write_text("redis://stream:secret@redis:6379/0\n")
        environment["GRAFT_REDIS_URL_FILE"] = str(tmp_path / "redis_url")
    settings = load_settings(environment)
    assert parse_url(settings.redis_url.get_secret_value()).host in {"redis", "localhost"}


@pytest.mark.parametrize("name", [*_RUNNING, "setup"])
def test_the_command_of_a_service_exists(name: str) -> None:
    group, verb = _GRAFT[name]["command"][:2]
    noun = cli.get_command(click.Context(cli), group)
    if isinstance(noun, click.Group):
        assert noun.get_command(click.Context(noun), verb) is not None
    else:
        assert noun is not None


@pytest.mark.parametrize("name", _RUNNING)
def test_a_service_is_healthy_only_when_it_is_ready(name: str) -> None:
    service = _GRAFT[name]
    assert str(service["environment"]["GRAFT_METRICS_PORT"]) == "9100"
    assert '("127.0.0.1", 9100)' in service["healthcheck"]["test"][-1]
    assert "GET /readyz " in service["healthcheck"]["test"][-1]


@pytest.mark.parametrize("name", [*_RUNNING, "entry", "kafka", "redis", "prometheus", "grafana"])
def test_a_process_comes_back_and_has_time_to_finish(name: str) -> None:
    assert _SERVICES[name]["restart"] == "unless-stopped"
    grace = re.fullmatch(r"(?:(\d+)m)?(\d+)s", _SERVICES[name]["stop_grace_period"])
    assert grace is not None
    assert 60 * int(grace[1] or 0) + int(grace[2]) >= 25  # the scorer gives its workers 15 s, HAProxy its requests 20


@pytest.mark.parametrize(
    ("name", "needed"),
    [
        ("replay", {"kafka", "setup"}),
        ("setup", {"redis"}),
        ("redis", {"secrets"}),
        ("scorer", {"redis", "setup"}),
        ("entry", {"scorer"}),
    ],
)
def test_a_service_starts_no_other_than_it_needs(name: str, needed: set[str]) -> None:
    assert set(_SERVICES[name]["depends_on"]) == needed


@pytest.fixture(scope="module")
def redis_users() -> ModuleType:
    return script("deploy/redis_users")


def test_each_user_of_redis_has_a_password_of_its_own_that_stays(redis_users: ModuleType, tmp_path: Path) -> None:
    redis_users.make_users(tmp_path)
    first = {path.relative_to(tmp_path): path.read_text() for path in tmp_path.rglob("*") if path.is_file()}
    redis_users.make_users(tmp_path)
    assert {path.relative_to(tmp_path): path.read_text() for path in tmp_path.rglob("*") if path.is_file()} == first

    urls = [parse_url(text) for path, text in first.items() if path.name == "redis_url"]
    assert {url.username for url in urls} == {"setup", "stream", "teacher", "learner", "archive", "scorer", "operator"}
    assert len({url.password for url in urls}) == len(urls)
    assert all(len(url.password or "") == 64 for url in urls)
    acl = first[Path("redis/users.acl")]
    assert not any((url.password or "") in acl for url in urls)
    assert "nopass" not in acl

    (tmp_path / "stream/redis_url").unlink()
    redis_users.make_users(tmp_path)
    assert (tmp_path / "stream/redis_url").read_text() != first[Path("stream/redis_url")]
    assert (tmp_path / "teacher/redis_url").read_text() == first[Path("teacher/redis_url")]


def test_no_process_may_administer_redis_and_the_readers_write_only_what_is_theirs(redis_users: ModuleType) -> None:
    dangerous = re.compile(r"\+(@|flush|config|acl|debug|shutdown|keys|module|replicaof|save|bgsave|migrate|monitor)")
    for user, rights in redis_users.RIGHTS.items():
        assert user == "default" or not dangerous.search(rights), user
    assert redis_users.RIGHTS["scorer"].startswith("%R~* %W~graft:served:* ")
    assert redis_users.RIGHTS["learner"].startswith("%R~* ~graft:teachers:* ")
    assert redis_users.RIGHTS["archive"].startswith("%R~graft:logits:* ")
