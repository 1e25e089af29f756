"""Alert rules and the dashboard against the metrics that there are; where promtool is, each alert fires once."""

import importlib
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import REGISTRY

_ROOT = Path(__file__).parents[2]
_FOLDER = _ROOT / "deploy/prometheus"
_ROOMS = ("runtime", "features", "stream", "teacher_cache", "student")
_RULES: list[dict[str, Any]] = yaml.safe_load((_FOLDER / "alerts.yml").read_text())["groups"][0]["rules"]
_DASHBOARD = json.loads((_ROOT / "deploy/grafana/graft.json").read_text())
_PROMETHEUS = {"up": {"job", "instance"}, "ALERTS": {"alertname", "alertstate", "severity"}}
"""What Prometheus itself makes, with the labels."""
_WORDS = {
    *("absent", "changes", "deriv", "histogram_quantile", "increase", "max", "min", "rate", "sum", "time"),
    *("and", "or", "unless", "group_left"),
}
_GROUPING = re.compile(r"\b(?:by|on|without|ignoring)\s*\(([^)]*)\)")


@pytest.fixture(scope="module")
def exposed() -> dict[str, set[str]]:
    """Every sample that a process can expose, with its labels."""
    for room in _ROOMS:
        for path in (_ROOT / room).rglob("*.py"):
            if "prometheus_client" in path.read_text("utf-8"):
                importlib.import_module(".".join(path.relative_to(_ROOT).with_suffix("").parts))
    found = dict(_PROMETHEUS)
    for collector, names in REGISTRY._collector_to_names.items():
        if not hasattr(collector, "_labelnames"):  # Python's own
            continue
        labels = {*collector._labelnames, "job", "instance"}
        is_histogram = f"{collector._name}_bucket" in names
        for name in names:
            if not is_histogram or name != collector._name:
                found[name] = labels | ({"le"} if name.endswith("_bucket") else set())
    return found


def expressions() -> Iterator[tuple[str, str]]:
    for rule in _RULES:
        yield rule["alert"], rule["expr"]
    for panel in _DASHBOARD["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target["expr"]


def unknown(expression: str, exposed: dict[str, set[str]]) -> list[str]:
    """The metrics and labels of an expression that no process exposes."""
    bare = re.sub(r'"[^"]*"|\[\w+\]', "", expression)
    grouped = [label for group in _GROUPING.findall(bare) for label in re.findall(r"\w+", group)]
    known_labels: set[str] = set()
    faults = []
    for name, selector in re.findall(r"\b([A-Za-z_]\w*)\s*(\{[^}]*\})?", _GROUPING.sub(" ", bare)):
        if name in exposed:
            known_labels |= exposed[name]
            labels = re.findall(r"(\w+)\s*[=!]", selector)
            faults += [f"{name}: {label}" for label in labels if label not in exposed[name]]
        elif name not in _WORDS:
            faults.append(name)
    return faults + [label for label in grouped if label not in known_labels]


@pytest.mark.parametrize(("where", "expression"), list(expressions()))
def test_what_rules_and_dashboard_ask_for_is_exposed(where: str, expression: str, exposed: dict[str, set[str]]) -> None:
    assert unknown(expression, exposed) == []


def test_every_alert_says_what_is_wrong_and_where_to_read_what_to_do() -> None:
    page = (_ROOT / "docs/operations.md").read_text("utf-8")
    headings = {heading.lower() for heading in re.findall(r"^#+ (\w+)$", page, re.MULTILINE)}
    for rule in _RULES:
        assert rule["annotations"]["summary"]
        file, anchor = rule["annotations"]["runbook"].split("#")
        assert (file, anchor) == ("docs/operations.md", rule["alert"].lower())
        assert anchor in headings
        assert rule["labels"]["severity"] in {"warning", "critical"}


def test_every_alert_is_fired_by_a_test() -> None:
    cases = yaml.safe_load((_ROOT / "tests/deploy/alerts_test.yml").read_text())["tests"]
    fired = [rule["alertname"] for case in cases for rule in case["alert_rule_test"] if rule["exp_alerts"]]
    assert fired == [rule["alert"] for rule in _RULES]


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "config", "deploy/prometheus/prometheus.yml"),
        ("check", "config", "deploy/prometheus/kubernetes.yml"),
        ("test", "rules", "tests/deploy/alerts_test.yml"),
    ],
)
def test_prometheus_takes_the_files_and_each_alert_fires_once(arguments: tuple[str, ...]) -> None:
    done = subprocess.run(["promtool", *arguments], cwd=_ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_process_of_compose_is_scraped() -> None:
    jobs = {job["job_name"]: job for job in yaml.safe_load((_FOLDER / "prometheus.yml").read_text())["scrape_configs"]}
    services = yaml.safe_load((_ROOT / "docker-compose.yml").read_text())["services"]
    ours = {name for name, service in services.items() if "9100" in str(service.get("healthcheck")) and name != "entry"}
    assert jobs.keys() == ours | {"stream", "teacher", "learner", "archive", "scorer"}
    for name, job in jobs.items():
        assert job["dns_sd_configs"] == [{"names": [name], "type": "A", "port": 9100, "refresh_interval": "15s"}]
