"""Follows docs/your-own-pair.md word for word: writes its files, runs its commands, on embedded services."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from lab.embedded import free_port
from runtime.child import start_child, stop_child
from stream.events import Feedback, Impression

DOCUMENT = Path(__file__).parents[3] / "docs" / "your-own-pair.md"
IMPRESSIONS = 800
_LEARNT_SECONDS = 150  # four processes start on busy cores


class Block(NamedTuple):
    language: str
    label: str
    text: str


def _blocks() -> list[Block]:
    fences = re.finditer(r"^```(\w+) ?(\S*)\n(.*?)^```$", DOCUMENT.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    return [Block(*fence.groups()) for fence in fences]


class Reader:
    """Someone who follows the page in an empty folder; `environment` is what their terminals have exported."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.log = folder / "terminals.log"
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self.environment = {**os.environ, "PATH": path, "GRAFT_HTTP_PORT": str(self.port)}
        self._children: list[subprocess.Popen[bytes]] = []
        self._services: subprocess.Popen[str] | None = None

    def write(self, block: Block) -> None:
        path = self.folder / block.label
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.text, "utf-8")

    def export(self, line: str) -> None:
        self.environment |= dict(word.split("=", 1) for word in shlex.split(line)[1:])

    def run(self, text: str) -> str:
        """The output of a block's commands; each line of it must succeed."""
        output = ""
        for command in text.replace("127.0.0.1:8080", f"127.0.0.1:{self.port}").splitlines():
            if command.startswith("export "):
                self.export(command)
                continue
            done = subprocess.run(
                ["bash", "-c", command],
                check=False,
                cwd=self.folder,
                env=self.environment,
                capture_output=True,
                text=True,
                timeout=120,
            )
            assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}\n{self._logged()}"
            output += done.stdout
        return output

    def start_services(self, text: str) -> None:
        """Start them and export what they print; they end when their standard input closes, as it does with us."""
        self._services = subprocess.Popen(
            shlex.split(text),
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.run(self._services.stdout.readline())

    def start(self, text: str) -> None:
        with self.log.open("ab") as log:
            child = start_child(shlex.split(text), env=self.environment, cwd=self.folder, stdout=log, stderr=log)
        self._children.append(child)

    def await_examples(self, least: int) -> None:
        """Until the newest version has learnt `least` examples."""
        deadline = time.monotonic() + _LEARNT_SECONDS
        while (learnt := self._learnt()) < least:
            ended = [child.args for child in self._children if child.poll() is not None]
            assert not ended, f"ended by themselves: {ended}\n{self._logged()}"
            assert time.monotonic() < deadline, f"{learnt} of {least} examples learnt\n{self._logged()}"
            time.sleep(0.5)

    def stop(self) -> list[int]:
        """The exit codes of the terminals' commands, which get a SIGTERM."""
        codes = [stop_child(child) for child in reversed(self._children)]
        if self._services is not None and self._services.poll() is None:
            self._services.communicate("\n", timeout=20)
            codes.append(self._services.returncode)
        return codes

    def _learnt(self) -> int:
        versions = self.folder / self.environment["GRAFT_VERSIONS"]
        manifests = sorted(versions.glob("v*/manifest.json"))
        return json.loads(manifests[-1].read_text("utf-8"))["examples"] if manifests else 0

    def _logged(self) -> str:
        return self.log.read_text("utf-8")[-4_000:] if self.log.exists() else ""


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    reader = Reader(tmp_path)
    yield reader
    reader.stop()


def test_every_block_of_the_page_is_understood():
    assert {block.label for block in _blocks() if block.language == "sh"} == {"", "terminal", "services"}
    assert all(Path(block.label).suffix for block in _blocks() if block.language in ("python", "toml", "yaml"))


def test_the_pages_event_lines_are_events():
    lines = next(block.text for block in _blocks() if block.language == "json").splitlines()
    impression, feedback = (json.loads(line) for line in lines)
    assert impression.pop("type") == "impression"
    assert feedback.pop("type") == "feedback"
    assert Feedback(**feedback).impression_id == Impression(**impression).impression_id


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.skipif(shutil.which("curl") is None, reason="the page's last command is curl")
def test_the_page_leads_from_an_empty_folder_to_scores(reader):
    output = ""
    for block in _blocks():
        match block.language, block.label:
            case "sh", "services":
                reader.start_services(block.text)
            case "sh", "terminal":
                reader.start(block.text)
            case "sh", _:
                if "student ls" in block.text:
                    reader.await_examples(IMPRESSIONS)
                output = reader.run(block.text)
            case _, "":
                continue
            case _:
                reader.write(block)
    reply = json.loads(output)
    assert reply["degraded"] is False
    assert reply["item_ids"] == ["978-0001", "978-0002", "978-0003"]
    assert list(reply["scores"]) == ["borrow"]  # chapters is not served
    assert all(0 < score < 1 for score in reply["scores"]["borrow"])
    assert int(reply["model_version"].removeprefix("v")) > 1
    assert set(reader.stop()) == {0}
