"""docker-compose.yml against the program: its commands and settings exist. Bringing it up is `make test-compose`'s."""

from pathlib import Path

import click
import pytest
import yaml

from graft.cli import cli
from graft.settings import load_settings

_SERVICES = yaml.safe_load(Path(__file__).parents[1].joinpath("docker-compose.yml").read_text())["services"]
_GRAFT = {name: service for name, service in _SERVICES.items() if service.get("image") == "graft"}


def test_compose_runs_every_process_of_the_path() -> None:
    assert set(_GRAFT) == {"setup", "stream", "teacher", "learner", "archive", "scorer", "replay"}


@pytest.mark.parametrize("name", sorted(_GRAFT))
def test_the_settings_of_a_service_exist(name: str) -> None:
    environment = {key: str(value) for key, value in _GRAFT[name]["environment"].items()}
    assert load_settings(environment).redis_url.get_secret_value() == "redis://redis:6379/0"


@pytest.mark.parametrize("name", ["stream", "teacher", "learner", "archive", "scorer"])
def test_the_command_of_a_service_exists(name: str) -> None:
    group, verb = _GRAFT[name]["command"][:2]
    noun = cli.get_command(click.Context(cli), group)
    assert isinstance(noun, click.Group)
    assert noun.get_command(click.Context(noun), verb) is not None


@pytest.mark.parametrize("name", ["stream", "teacher", "learner", "archive", "scorer"])
def test_a_service_is_healthy_only_when_it_is_ready(name: str) -> None:
    service = _GRAFT[name]
    port = service["environment"].get("GRAFT_HTTP_PORT") or service["environment"]["GRAFT_METRICS_PORT"]
    assert f"http://127.0.0.1:{port}/readyz" in service["healthcheck"]["test"][-1]


def test_ports_are_published_on_loopback_only() -> None:
    ports = [port for service in _SERVICES.values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)
