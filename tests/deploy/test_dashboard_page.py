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
from tests.stream.conftest import await_that

_ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def page() -> ModuleType:
    return script("deploy/dashboard_page")


class Answers(BaseHTTPRequestHandler):
    """A Prometheus that knows one series, and refuses what it is told to."""

    found = (200, {"data": {"result": [{"metric": {"job": "<b>a</b>"}, "values": [[0, "1"], [30, "NaN"], [60, "2"]]}]}})

    def do_GET(self) -> None:
        self.send_response(self.found[0])
        self.end_headers()
        self.wfile.write(json.dumps(self.found[1]).encode())

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def answers() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.fixture
def prometheus(tmp_path: Path) -> Iterator[str]:
    """Debian's, with our own rules and nothing to scrape."""
    if shutil.which("prometheus") is None:
        pytest.skip("prometheus is not installed")
    settings = {"global": {"evaluation_interval": "200ms"}}
    settings |= {"rule_files": [str(_ROOT / "deploy/prometheus/alerts.yml")]}
    (tmp_path / "prometheus.yml").write_text(json.dumps(settings))
    port = free_port()
    options = [f"--config.file={tmp_path}/prometheus.yml", f"--storage.tsdb.path={tmp_path}/data"]
    options.append(f"--web.listen-address=127.0.0.1:{port}")
    with subprocess.Popen(["prometheus", *options], stderr=subprocess.DEVNULL) as child:
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            child.terminate()


def read(page: ModuleType, url: str) -> tuple[str, list[str]]:
    """The page, and the titles of its panels without data."""
    end = time.time()
    lines = [page.read_panel(url, panel, end - 60, end) for panel in DASHBOARD["panels"]]
    empty = [panel["title"] for panel, of in zip(DASHBOARD["panels"], lines, strict=True) if not of]
    return page.page(DASHBOARD, lines, end - 60, end), empty


def _is_ready(prometheus: str) -> bool:
    try:
        with urllib.request.urlopen(f"{prometheus}/-/ready", timeout=5) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


@pytest.mark.timeout(180)
def test_no_query_of_a_panel_and_no_rule_has_an_error(page: ModuleType, prometheus: str) -> None:
    await_that(lambda: _is_ready(prometheus), 90, lambda: "Prometheus does not start")
    read(page, prometheus)
    with urllib.request.urlopen(f"{prometheus}/api/v1/rules", timeout=10) as reply:
        rules = json.load(reply)["data"]["groups"][0]["rules"]
    assert [rule["name"] for rule in rules if rule["health"] == "err"] == []


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
