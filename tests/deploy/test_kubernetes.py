"""deploy/kubernetes: rendered by kustomize, valid by Kubernetes' own schemas, and as closed as docker-compose.yml."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from graft.cli import cli
from graft.settings import load_settings
from tests.secured import Certificates

_ROOT = Path(__file__).parents[2]
_FOLDER = _ROOT / "deploy/kubernetes"
_TOOL = next(([tool] for tool in ("kustomize", "kubectl") if shutil.which(tool)), None)
_KINDS = {"Deployment", "StatefulSet", "Job"}
_PROCESSES = ["stream", "teacher", "learner", "archive", "scorer"]
_KUBERNETES = "1.33"
"""The release whose schemas hold; the manifests need 1.30 or newer."""

needs_kustomize = pytest.mark.skipif(_TOOL is None, reason="neither kustomize nor kubectl is installed")
Manifest = dict[str, Any]


@cache
def rendered(folder: str) -> list[Manifest]:
    assert _TOOL is not None
    command = [*_TOOL, "build" if _TOOL == ["kustomize"] else "kustomize", folder]
    done = subprocess.run(command, cwd=_FOLDER, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def workloads(folder: str) -> dict[str, Manifest]:
    """The pods' specifications by the name of what makes them."""
    return {
        one["metadata"]["name"]: one["spec"]["template"]["spec"] for one in rendered(folder) if one["kind"] in _KINDS
    }


def containers(pod: Manifest) -> list[Manifest]:
    return [*pod["containers"], *pod.get("initContainers", [])]


def faults(name: str, pod: Manifest) -> list[str]:
    """What a pod lacks of what closes it, as `faults` of tests/test_compose_file.py."""
    found = []
    mounts = {volume["name"] for volume in pod["volumes"] if "emptyDir" in volume}
    for one in containers(pod):
        security = one.get("securityContext", {})
        limits = one.get("resources", {}).get("limits", {})
        paths = {mount["mountPath"] for mount in one.get("volumeMounts", []) if mount["name"] in mounts}
        closed = {
            "its root can be written": security.get("readOnlyRootFilesystem") is True,
            "it has no /tmp of its own": "/tmp" in paths,
            "it keeps capabilities": security.get("capabilities") == {"drop": ["ALL"]},
            "it may gain privileges": security.get("allowPrivilegeEscalation") is False,
            "its memory has no limit": "memory" in limits,
            "its processor time has no limit": "cpu" in limits,
            "a password stands in its environment": not re.search(r"://[^/\s]*@", str(one.get("env", ""))),
        }
        found += [f"{name}/{one['name']}: {fault}" for fault, holds in closed.items() if not holds]
    of_pod = {
        "it may run as root": pod["securityContext"].get("runAsNonRoot") is True,
        "it has every system call": pod["securityContext"].get("seccompProfile") == {"type": "RuntimeDefault"},
        "it reaches Kubernetes": pod.get("automountServiceAccountToken") is False,
        "its environment has variables of other services": pod.get("enableServiceLinks") is False,
        "it shares the host": not any(pod.get(key) for key in ("hostNetwork", "hostPID", "hostIPC")),
    }
    return found + [f"{name}: {fault}" for fault, holds in of_pod.items() if not holds]


@needs_kustomize
@pytest.mark.parametrize("folder", ["setup", "base", "s3"])
def test_what_is_rendered_is_valid_and_closed(folder: str) -> None:
    validate = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed").validate
    for manifest in rendered(folder):
        validate(manifest, _KUBERNETES, strict=True)
        assert manifest["metadata"]["namespace"] == "graft"
    assert [fault for name, pod in workloads(folder).items() for fault in faults(name, pod)] == []


@needs_kustomize
def test_every_process_of_compose_is_there_with_its_command_and_time_to_finish() -> None:
    services = yaml.safe_load((_ROOT / "docker-compose.yml").read_text())["services"]
    pods = workloads("base")
    assert sorted(pods) == sorted(_PROCESSES)
    for name, pod in [*pods.items(), *workloads("setup").items()]:
        args = pod["containers"][0]["args"]
        assert args == services[name]["command"]
        noun = cli.get_command(click.Context(cli), args[0])
        assert noun is not None
        assert not isinstance(noun, click.Group) or noun.get_command(click.Context(noun), args[1]) is not None
        if name != "setup":
            assert pod["terminationGracePeriodSeconds"] >= int(services[name]["stop_grace_period"].rstrip("s") or 0)


@needs_kustomize
def test_the_sidecars_commands_exist() -> None:
    for name, command in (("learner", "push"), ("scorer", "pull")):
        sidecar = workloads("s3")[name]["initContainers"][0]
        assert sidecar["args"][:2] == ["student", command]
        student = cli.get_command(click.Context(cli), "student")
        assert isinstance(student, click.Group)
        assert student.get_command(click.Context(student), command) is not None
    volumes = {volume["name"]: volume for volume in workloads("s3")["scorer"]["volumes"]}
    assert "persistentVolumeClaim" not in volumes["versions"]


@needs_kustomize
@pytest.mark.parametrize("folder", ["setup", "base", "s3"])
def test_the_settings_of_a_container_exist(folder: str, tmp_path: Path, certificates: Certificates) -> None:
    maps = {one["metadata"]["name"]: one["data"] for one in rendered(folder) if one["kind"] == "ConfigMap"}
    for name, text in (("redis_url", "rediss://stream:secret@redis:6379/0"), ("kafka_password", "secret")):
        (tmp_path / name).write_text(text)
    for name in ("kafka_ca.pem", "redis_ca.pem"):
        shutil.copy(certificates.ca, tmp_path / name)
    for pod in workloads(folder).values():
        for one in containers(pod):
            given = dict(_environment(one, maps))
            found = {key: value.replace("/run/secrets", str(tmp_path)) for key, value in given.items()}
            assert load_settings({key: value for key, value in found.items() if key.startswith("GRAFT_")})


def _environment(container: Manifest, maps: dict[str, dict[str, str]]) -> Iterator[tuple[str, str]]:
    for source in container.get("envFrom", []):
        yield from maps[source["configMapRef"]["name"]].items()
    yield from ((variable["name"], variable["value"]) for variable in container.get("env", []))


@needs_kustomize
def test_each_process_is_asked_whether_it_is_ready_and_sees_its_own_secret_alone() -> None:
    for name, pod in workloads("base").items():
        container = pod["containers"][0]
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        assert ports["metrics"] == 9100
        assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "metrics"}
        assert container["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": "metrics"}
        secrets = [volume["secret"]["secretName"] for volume in pod["volumes"] if "secret" in volume]
        assert secrets == [f"graft-{name}"]


@needs_kustomize
def test_each_process_has_a_disruption_budget_that_chooses_its_pods() -> None:
    labels = {
        one["metadata"]["name"]: one["spec"]["template"]["metadata"]["labels"]
        for one in rendered("base")
        if one["kind"] in _KINDS
    }
    budgets = {one["metadata"]["name"]: one["spec"] for one in rendered("base") if one["kind"] == "PodDisruptionBudget"}
    assert {name: budget["selector"]["matchLabels"] for name, budget in budgets.items()} == labels


@needs_kustomize
def test_what_an_autoscaler_asks_for_is_made_of_metrics_that_are_exposed() -> None:
    rules = {
        rule["name"]["as"]: rule for rule in yaml.safe_load((_FOLDER / "adapter.yaml").read_text())["rules"]["external"]
    }
    scalers = [one["spec"] for one in rendered("base") if one["kind"] == "HorizontalPodAutoscaler"]
    assert {scaler["scaleTargetRef"]["name"] for scaler in scalers} == {"stream", "teacher", "scorer"}
    assert {metric["external"]["metric"]["name"] for scaler in scalers for metric in scaler["metrics"]} == rules.keys()
    for rule in rules.values():
        assert rule["seriesQuery"] in rule["metricsQuery"]
    code = "".join(
        path.read_text("utf-8")
        for room in ("stream", "teacher_cache", "student")
        for path in (_ROOT / room).rglob("*.py")
    )
    for name in {rule["seriesQuery"] for rule in rules.values()}:
        assert f'"{name}"' in code
