import os
import signal
import subprocess
import sys
import urllib.request

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


def test_a_stop_that_was_asked_for_ends_a_wait_at_once() -> None:
    stop = StopSignal()
    assert not stop.wait(0)
    stop.set()
    assert stop.is_set()
    assert stop.wait(60)
