import os
import signal
import subprocess
import sys
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest

from lab.embedded import free_port
from runtime.telemetry import StopSignal

_PROCESS = """
import sys
from prometheus_client import Counter
from runtime.health_server import HealthServer
from runtime.telemetry import StopSignal, configure_logging
configure_logging("INFO")
Counter("graft_test", "A test's.").inc(3)
HealthServer(int(sys.argv[1]))
stop = StopSignal().install()
print("ready", flush=True)
while not stop.wait(60):
    pass
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_process_serves_its_metrics_until_it_is_told_to_stop(number: signal.Signals) -> None:
    port = free_port()
    argv = [sys.executable, "-c", _PROCESS, str(port)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as reply:
            assert "graft_test_total 3.0" in reply.read().decode()
        os.kill(process.pid, number)
        assert process.wait(10) == 0


_STOPPED_AT_EACH_LINE = """
import signal, sys
from runtime.telemetry import StopSignal

def signal_at(line, stop):
    lines = iter(range(line))
    def trace(frame, event, argument):
        if event == "line" and next(lines, None) is None:
            sys.settrace(None)
            signal.raise_signal(signal.SIGTERM)
        return trace
    sys.settrace(trace)

for line in range(40):
    stop = StopSignal().install()
    signal_at(line, stop)
    stop.wait(0.05)
    sys.settrace(None)
    assert stop.is_set() == (stop.wait(0)), line
    print(stop.is_set(), flush=True)
"""


def test_a_signal_at_any_line_of_a_wait_is_taken() -> None:
    argv = [sys.executable, "-c", _STOPPED_AT_EACH_LINE]
    said = subprocess.run(argv, timeout=30, check=True, capture_output=True, text=True).stdout.split()
    assert said[:4] == ["True"] * 4  # lines of the wait itself
    assert len(said) == 40


_OTHER_SIGNAL = """
import signal, threading, time
from runtime.telemetry import StopSignal

signal.signal(signal.SIGUSR1, lambda *_: time.sleep(0.3))
threading.Timer(0.1, signal.pthread_kill, (threading.get_ident(), signal.SIGUSR1)).start()
print(StopSignal().wait(0.15))
"""


def test_a_signal_of_others_whose_handler_outlasts_a_wait_does_not_make_it_endless() -> None:
    argv = [sys.executable, "-c", _OTHER_SIGNAL]
    assert subprocess.run(argv, timeout=30, check=True, capture_output=True, text=True).stdout == "False\n"


def test_a_stop_ends_the_waits_of_all_threads() -> None:
    stop = StopSignal()
    with ThreadPoolExecutor(8) as threads:
        waits = [threads.submit(stop.wait, 60) for _ in range(8)]
        stop.set()
        assert all(wait.result(10) for wait in waits)


def test_a_stop_that_was_asked_for_ends_a_wait_at_once() -> None:
    stop = StopSignal()
    assert not stop.wait(0)
    stop.set()
    assert stop.is_set()
    assert stop.wait(60)
