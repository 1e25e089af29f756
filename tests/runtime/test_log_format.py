import json
import logging
import subprocess
import sys
from datetime import UTC, datetime
from typing import Any
from unicodedata import category

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.log_format import FIELDS, JsonLines, TextLines

_PROCESS = """
import logging, sys, threading, warnings
from runtime.log_format import say
from runtime.telemetry import configure_logging
configure_logging("INFO", sys.argv[1], "stream run")
log = logging.getLogger("stream.kafka.skips")
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
    argv = [sys.executable, "-W", "default", "-c", _PROCESS, log_format]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    return done.stderr.splitlines()


def test_each_line_of_a_process_is_one_json_object_whatever_is_in_it() -> None:
    found = [json.loads(line) for line in _lines("json")]
    assert [line["level"] for line in found] == ["INFO", "WARNING", "ERROR", "ERROR", "WARNING", "CRITICAL", "CRITICAL"]
    first, skipped, failed, said, warned, thread, last = found
    assert first["message"] == "two\nlines of \\udcff\x00\u2028 \N{SNOWMAN}"
    assert (first["logger"], first["process"]) == ("stream.kafka.skips", "stream run")
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
    assert r" INFO stream.kafka.skips two\x0alines of \udcff\x00" in lines[0]
    assert next(line for line in lines if "skipped" in line).endswith(" WARNING stream.kafka.skips skipped")
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
