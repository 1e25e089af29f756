"""The page of our own from the dashboard's queries; where Prometheus is installed, every panel with what it scrapes."""

import json
import shutil
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from html.parser import HTMLParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType

import pytest

from lab.embedded import free_port
from tests.deploy.test_alerts import _DASHBOARD as DASHBOARD
from tests.scripts import script

_ROOT = Path(__file__).parents[2]
_SAMPLES = {  # every metric that a panel asks for, as processes expose them
    "stream": """graft_stream_records_total{{topic="impressions"}} {n}
graft_stream_examples_total {n}
graft_stream_dead_letters_total{{topic="impressions",reason="invalid"}} {n}
graft_stream_lag_records{{topic="impressions"}} 3
graft_stream_watermark_seconds {now}
graft_service_away{{service="kafka"}} 0
""",
    "teacher": """graft_teacher_lag_records 4
graft_teacher_scored_rows_total {n}
graft_teacher_refused_rows_total 0
graft_teacher_busy_seconds_total {n}
graft_teacher_oldest_waiting_seconds 1
""",
    "learner": """graft_student_version 7
graft_student_champion_held 0
graft_student_lag_records 1
graft_student_logits_total{{outcome="hit"}} {n}
graft_student_logit_age_seconds_bucket{{le="60.0"}} {n}
graft_student_logit_age_seconds_bucket{{le="+Inf"}} {n}
graft_student_logit_age_seconds_count {n}
graft_student_learned_examples {n}
graft_student_set_aside_examples_total 0
graft_student_progressive_metric{{metric="auc",slice="recent",task="like",arm="student"}} 0.8
graft_student_verdicts_total{{verdict="promote"}} {n}
graft_skew_rows{{outcome="differing"}} 1
graft_skew_rows{{outcome="equal"}} 9
graft_skew_drift{{column="age"}} 0.2
""",
    "archive": """graft_archive_lag_records 0
""",
    "scorer": """graft_scorer_version 7
graft_scorer_swaps_total {n}
graft_scorer_requests_total{{status="200"}} {n}
graft_scorer_degraded_total 0
graft_scorer_request_seconds_bucket{{le="0.005"}} {n}
graft_scorer_request_seconds_bucket{{le="+Inf"}} {n}
""",
}


@pytest.fixture(scope="module")
def page() -> ModuleType:
    return script("deploy/dashboard_page")


class Processes(BaseHTTPRequestHandler):
    """Answers as the process that the path names, with counters that grow."""

    def do_GET(self) -> None:
        text = _SAMPLES[self.path.split("/")[1]].format(n=int(1000 * time.monotonic()), now=time.time())
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        """Nothing."""


class Answers(BaseHTTPRequestHandler):
    """A Prometheus that knows one series, and refuses what it is told to."""

    found = (200, {"data": {"result": [{"metric": {"job": "<b>a</b>"}, "values": [[0, "1"], [30, "NaN"], [60, "2"]]}]}})

    def do_GET(self) -> None:
        self.send_response(self.found[0])
        self.end_headers()
        self.wfile.write(json.dumps(self.found[1]).encode())

    log_message = Processes.log_message


def served(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.fixture
def answers() -> Iterator[str]:
    yield from served(Answers)


@pytest.fixture
def prometheus(tmp_path: Path) -> Iterator[str]:
    """Debian's, which scrapes a double of each process every 0.2 s, with our own rules."""
    if shutil.which("prometheus") is None:
        pytest.skip("prometheus is not installed")
    for address in served(Processes):
        jobs = [
            {"job_name": name, "metrics_path": f"/{name}", "static_configs": [{"targets": [address]}]}
            for name in _SAMPLES
        ]
        settings = {"global": {"scrape_interval": "200ms", "scrape_timeout": "200ms", "evaluation_interval": "200ms"}}
        settings |= {"scrape_configs": jobs, "rule_files": [str(_ROOT / "deploy/prometheus/alerts.yml")]}
        (tmp_path / "prometheus.yml").write_text(json.dumps(settings))
        port = free_port()
        options = [f"--config.file={tmp_path}/prometheus.yml", f"--storage.tsdb.path={tmp_path}/data"]
        child = subprocess.Popen(
            ["prometheus", *options, f"--web.listen-address=127.0.0.1:{port}"], stderr=subprocess.DEVNULL
        )
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            child.terminate()
            child.wait(30)


def read(page: ModuleType, url: str) -> tuple[str, list[str]]:
    """The page, and the titles of its panels without data."""
    end = time.time()
    lines = [page.read_panel(url, panel, end - 60, end) for panel in DASHBOARD["panels"]]
    empty = [panel["title"] for panel, of in zip(DASHBOARD["panels"], lines, strict=True) if not of]
    return page.page(DASHBOARD, lines, end - 60, end), empty


@pytest.mark.timeout(180)
def test_every_panel_has_data_and_no_rule_an_error(page: ModuleType, prometheus: str) -> None:
    deadline = time.monotonic() + 90
    empty = ["none was asked"]
    while empty and time.monotonic() < deadline:
        time.sleep(0.5)
        try:
            _, empty = read(page, prometheus)
        except SystemExit:
            continue
        empty = [title for title in empty if title != "Alerts that fire"]
    assert empty == []
    with urllib.request.urlopen(f"{prometheus}/api/v1/rules", timeout=10) as reply:
        rules = json.load(reply)["data"]["groups"][0]["rules"]
    assert [rule["name"] for rule in rules if rule["health"] != "ok"] == []


def test_the_page_shows_every_panel_with_its_lines_and_escapes_what_labels_say(page: ModuleType, answers: str) -> None:
    text, empty = read(page, f"http://{answers}")
    assert empty == []
    assert [title for title in (panel["title"] for panel in DASHBOARD["panels"]) if f">{title}<" not in text] == []
    assert "<b>a</b>" not in text
    assert "&lt;b&gt;a&lt;/b&gt; <b>2</b>" in text
    assert text.count("<svg") == sum(panel["type"] == "timeseries" for panel in DASHBOARD["panels"])
    HTMLParser().feed(text)


def test_a_prometheus_that_refuses_or_is_away_is_one_line(
    page: ModuleType, answers: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Answers, "found", (400, {"error": "parse error"}))
    with pytest.raises(SystemExit, match=r"refuses 'sum by .*parse error"):
        read(page, f"http://{answers}")
    with pytest.raises(SystemExit, match=r"no Prometheus answers at http://127\.0\.0\.1:1: .*--prometheus names it"):
        read(page, "http://127.0.0.1:1")
