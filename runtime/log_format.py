"""How log lines look: for people as they always did, or as JSON, one object a line.

A log call names what it is about by `extra`: the fields of `FIELDS`, which the text lines have in their words.
"""

import json
import logging
import sys
import threading
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Literal

LogFormat = Literal["text", "json"]

FIELDS = ("topic", "partition", "offset", "version", "request_id")
"""What a line of JSON has beside the rest where its log call gives it."""

_TEXT = "%(asctime)s %(levelname)s %(name)s %(message)s"
_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if chr(code) != "\t"}
"""Spelled out in text: with an id that holds them a client could forge lines, or drive a terminal."""

_log = logging.getLogger("graft")


class JsonLines(logging.Formatter):
    """One JSON object for each record: time (ISO 8601, UTC), level, logger, process, pid, message, then the fields.

    What an exception tells is in `exception`. Every character is ASCII, and what is no Unicode is escaped.
    """

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, Any] = {
            "time": time.replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            "process": self._process,
            "pid": record.process,
            "message": _unicode(record.getMessage()),
        }
        line |= {name: _plain(vars(record)[name]) for name in FIELDS if vars(record).get(name) is not None}
        if record.exc_info:
            line["exception"] = _unicode(self.formatException(record.exc_info))
        return json.dumps(line)


class TextLines(logging.Formatter):
    """One line for each record, but for what an exception tells, which follows it."""

    def __init__(self) -> None:
        super().__init__(_TEXT)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """The line, without its end."""
        return super().formatMessage(record).translate(_CONTROLS)


def formatter(log_format: LogFormat, process: str) -> logging.Formatter:
    """Of the lines of one process, named by its command."""
    return JsonLines(process) if log_format == "json" else TextLines()


def log_what_ends_the_process() -> None:
    """Let warnings and exceptions that nobody catches be log lines too, in place of text on standard error."""
    logging.captureWarnings(capture=True)
    sys.excepthook = _uncaught
    threading.excepthook = lambda of: _uncaught(of.exc_type, of.exc_value, of.exc_traceback)


def say(text: str, level: int = logging.INFO, prefix: str = "", **fields: Any) -> None:
    """A line of a command on standard error, beside its log: `prefix` and `text`; where that is JSON, a log line."""
    if any(isinstance(handler.formatter, JsonLines) for handler in logging.getLogger().handlers):
        _log.log(level, "%s", text, extra=fields)
    else:
        print(prefix + text, file=sys.stderr, flush=True)  # noqa: T201 - where log lines go


def _uncaught(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    _log.critical("the process ends: %s", kind.__name__, exc_info=(kind, error or kind(), trace))


def _plain(value: Any) -> Any:
    return value if isinstance(value, int) else _unicode(str(value))


def _unicode(text: str) -> str:
    r"""With ``\udcff`` spelled out where a byte was no Unicode: parsers do not agree on half of a pair."""
    return text.encode("utf-8", "backslashreplace").decode()
