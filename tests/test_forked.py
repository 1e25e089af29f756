"""What `tests.forked` starts is as good as a child of one's own."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from runtime.child import start_child, stop_child
from tests.forked import start_forked

EXAMPLE = "tests.forked_example"
_PARENT = f"""
import sys, time
from tests.forked import start_forked
start_forked(["{EXAMPLE}", "wait"], stderr=sys.stderr)
time.sleep(600)
"""


def _said(*how: str, group: int = 0, env: dict[str, str] | None = None) -> tuple[list[str], int]:
    """The words of a child's first line, and its exit code."""
    child = start_forked([EXAMPLE, *how], stderr=subprocess.PIPE, group=group, env=env)
    with child.stderr:
        line = child.stderr.readline().decode().split()
        child.stderr.read()
    return line, child.wait(10)


def test_a_fork_has_its_arguments_and_its_environment_and_its_exit_code_is_told() -> None:
    (_, _, variable, *arguments), code = _said("0", env={"FORKED": "yes"})
    assert (variable, " ".join(arguments), code) == ("yes", "['0']", 0)
    assert _said("a failure")[1] == 1


def test_forks_of_one_group_have_one_hash_seed_and_those_of_two_have_two() -> None:
    seeds = [_said("0", group=group)[0][1] for group in (0, 0, 1)]
    assert seeds[0] == seeds[1] != seeds[2]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_fork_takes_signals_and_a_wait_for_it_ends_in_time(number: signal.Signals) -> None:
    child = start_forked([EXAMPLE, "wait"], stderr=subprocess.PIPE)
    with child.stderr:
        assert int(child.stderr.readline().split()[0]) == child.pid
        assert child.poll() is None
        with pytest.raises(subprocess.TimeoutExpired):
            child.wait(0.01)
        child.send_signal(number)
        assert child.wait(10) == child.returncode == -number
    child.send_signal(number)  # nobody's any more
    assert stop_child(child) == -number


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a child is started, not forked")
def test_a_fork_does_not_outlive_who_asked_for_it() -> None:
    parent = start_child([sys.executable, "-c", _PARENT], stderr=subprocess.PIPE, cwd=Path(__file__).parents[1])
    assert parent.stderr is not None
    with parent.stderr:
        pid = int(parent.stderr.readline().split()[0])
        os.kill(pid, 0)
        parent.kill()
        parent.wait(10)
        deadline = time.monotonic() + 20
        while Path(f"/proc/{pid}").exists():
            assert time.monotonic() < deadline, f"{pid} lives on"
            time.sleep(0.02)
