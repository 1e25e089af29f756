import json
import logging
import os
import signal
import subprocess
import sys
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any
from unicodedata import category

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.embedded import free_port
from runtime.telemetry import FIELDS, JsonLines, StopSignal, TextLines

_PROCESS = """
import sys
from prometheus_client import Counter
from runtime.health import HealthServer
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


_LOGGED = """
import logging, sys, threading, warnings
from runtime.telemetry import say
from runtime.telemetry import configure_logging
configure_logging("INFO", sys.argv[1], "stream run")
log = logging.getLogger("stream.kafka.decoding")
log.info("two\\nlines of %s", "\\udcff\\x00\\u2028 \\N{SNOWMAN}")
log.warning("skipped", extra={"topic": "impressions", "partition": 3, "offset": 12, "version": None, "other": 1})
try:
    1 / 0
except ZeroDivisionError:
    log.exception("failed")
say("no brokers", logging.ERROR, "error: ", offset=7)
warnings.warn("old", DeprecationWarning)
thread = threading.Thread(target=lambda: [][1])
thread.start()
thread.join()
raise SystemError("a\\nb")
"""


def _lines(log_format: str) -> list[str]:
    argv = [sys.executable, "-W", "default", "-c", _LOGGED, log_format]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    return done.stderr.splitlines()


def test_each_line_of_a_process_is_one_json_object_whatever_is_in_it() -> None:
    found = [json.loads(line) for line in _lines("json")]
    assert [line["level"] for line in found] == ["INFO", "WARNING", "ERROR", "ERROR", "WARNING", "CRITICAL", "CRITICAL"]
    first, skipped, failed, said, warned, thread, last = found
    assert first["message"] == "two\nlines of \\udcff\x00\u2028 \N{SNOWMAN}"
    assert (first["logger"], first["process"]) == ("stream.kafka.decoding", "stream run")
    assert abs(datetime.fromisoformat(first["time"]) - datetime.now(UTC)).total_seconds() < 30
    assert first["time"].endswith("Z")
    assert {name: skipped[name] for name in ("topic", "partition", "offset")} == {
        "topic": "impressions",
        "partition": 3,
        "offset": 12,
    }
    assert not {"version", "other"} & skipped.keys()
    assert failed["exception"].splitlines()[-1] == "ZeroDivisionError: division by zero"
    assert (said["message"], said["offset"]) == ("no brokers", 7)
    assert "DeprecationWarning: old" in warned["message"]
    assert thread["exception"].endswith("IndexError: list index out of range")
    assert last["exception"].endswith("SystemError: a\nb")


def test_the_text_lines_are_what_they_were() -> None:
    lines = _lines("text")
    assert r" INFO stream.kafka.decoding two\x0alines of \udcff\x00" in lines[0]
    assert next(line for line in lines if "skipped" in line).endswith(" WARNING stream.kafka.decoding skipped")
    assert "error: no brokers" in lines


@given(st.text(st.characters(exclude_categories=())))
def test_no_text_makes_a_second_line_or_a_control_character(text: str) -> None:
    line = TextLines().format(logging.LogRecord("a", logging.INFO, "", 0, "%s", (text,), None))
    assert not [character for character in line if category(character) == "Cc" and character != "\t"]


@given(
    st.text(st.characters(exclude_categories=())), st.dictionaries(st.sampled_from(FIELDS), st.text() | st.integers())
)
def test_any_text_becomes_one_line_of_ascii(text: str, fields: dict[str, Any]) -> None:
    record = logging.LogRecord("a", logging.INFO, "", 0, "%s", (text,), None)
    vars(record).update(fields)
    line = JsonLines("p").format(record)
    assert line.isascii()
    assert len(line.splitlines()) == 1
    assert json.loads(line)["message"] == text.encode("utf-8", "backslashreplace").decode()
    assert json.loads(line).keys() >= fields.keys()


@pytest.mark.parametrize("setting", ["GRAFT_LOG_LEVEL", "GRAFT_NO_SUCH"])
def test_what_ends_a_command_is_a_line_too(setting: str) -> None:
    environment = {"GRAFT_LOG_FORMAT": "json", setting: "odd", "PYTHONPATH": ":".join(sys.path)}
    argv = [sys.executable, "-m", "graft", "student", "ls"]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    told = json.loads(line)
    assert told["message"].startswith(setting)
    assert (told["level"], told["process"]) == ("ERROR", "student ls")
