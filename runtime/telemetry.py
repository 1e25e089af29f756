"""Logs and the stop signal of one process.

Metric objects are declared at the top of the module that sets them, with `prometheus_client`; runtime/health.py exposes
them. Log lines go to standard error as ``time level logger message key=value``, or as JSON, one object a line. A log
call names what it is about by `extra`: the fields of `FIELDS`, which the text lines have in their words.
"""

import json
import logging
import signal
import sys
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime
from types import FrameType, TracebackType
from typing import Any, Literal

LogFormat = Literal["text", "json"]

FIELDS = ("topic", "partition", "offset", "version", "request_id")
"""What a line of JSON has beside the rest where its log call gives it."""

_TEXT = "%(asctime)s %(levelname)s %(name)s %(message)s"
_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if chr(code) != "\t"}
"""Spelled out in text: with an id that holds them a client could forge lines, or drive a terminal."""

_log = logging.getLogger("graft")

_SLICE_SECONDS = 0.2
"""Python looks at a signal that came just before a blocking call only after it."""


def configure_logging(level: str = "INFO", log_format: LogFormat = "text", process: str = "") -> None:
    """Send this process's log lines to standard error; foreign libraries only from WARNING on.

    `process`: what JSON lines call it.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines(process) if log_format == "json" else TextLines())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    if log_format == "json":
        _log_what_ends_the_process()
    # kafka-python logs an ERROR line at every disconnect and retries by itself.
    logging.getLogger("kafka").setLevel(logging.CRITICAL)
    # It tells of each try at a collector that is away; that a batch is lost is an ERROR.
    logging.getLogger("opentelemetry").setLevel(logging.ERROR)
    for name in ("feast", "uvicorn.access", "asyncio", "numba", "botocore", "aiobotocore"):
        logging.getLogger(name).setLevel(logging.WARNING)


def say(text: str, level: int = logging.INFO, prefix: str = "", **fields: Any) -> None:
    """A line of a command on standard error, beside its log: `prefix` and `text`; where that is JSON, a log line."""
    if any(isinstance(handler.formatter, JsonLines) for handler in logging.getLogger().handlers):
        _log.log(level, "%s", text, extra=fields)
    else:
        print(prefix + text, file=sys.stderr, flush=True)  # noqa: T201 - where log lines go


class StopSignal:
    """Set by SIGTERM or SIGINT; a loop asks `is_set()` between batches or sleeps in `wait(seconds)`.

    A lock alone. A threading.Event waits for ever where a signal comes as a wait begins: its `set` waits for a lock
    that the `wait` of the same thread holds. A queue.SimpleQueue does, before Python 3.13, where the handler of any
    signal outlasts the timeout of its `get`.
    """

    def __init__(self) -> None:
        self._is_set = False
        self._until_set = threading.Lock()
        """Held until the first `set`; then only for a moment, by one who waits."""
        self._until_set.acquire()

    def install(self) -> "StopSignal":
        """Take over SIGTERM and SIGINT; only from the main thread."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        return self

    def set(self) -> None:
        """Ask the loop to end after its current batch."""
        self._is_set = True
        self._let_go()

    def is_set(self) -> bool:
        """Whether the loop should end."""
        return self._is_set

    def wait(self, seconds: float) -> bool:
        """Sleep for at most `seconds`; True as soon as a stop is asked for, at the latest 0.2 s after."""
        end = time.monotonic() + seconds
        while not self._is_set and (left := end - time.monotonic()) > 0:
            if self._until_set.acquire(timeout=min(left, _SLICE_SECONDS)):
                self._let_go()  # for other threads that wait
        return self._is_set

    def _let_go(self) -> None:
        with suppress(RuntimeError):  # another one has: a second `set`, or one in the middle of a wait
            self._until_set.release()

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self.set()


class JsonLines(logging.Formatter):
    """One JSON object for each record: time (ISO 8601, UTC), level, logger, process, pid, message, then the fields.

    What an exception tells is in `exception`. Every character is ASCII, and what is no Unicode is escaped.
    """

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        written_at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, Any] = {
            "time": written_at.replace("+00:00", "Z"),
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


def _log_what_ends_the_process() -> None:
    """Let warnings and exceptions that nobody catches be log lines too, in place of text on standard error."""
    logging.captureWarnings(capture=True)
    sys.excepthook = _uncaught
    threading.excepthook = lambda of: _uncaught(of.exc_type, of.exc_value, of.exc_traceback)


def _uncaught(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    _log.critical("the process ends: %s", kind.__name__, exc_info=(kind, error or kind(), trace))


def _plain(value: Any) -> Any:
    return value if isinstance(value, int) else _unicode(str(value))


def _unicode(text: str) -> str:
    r"""With ``\udcff`` spelled out where a byte was no Unicode: parsers do not agree on half of a pair."""
    return text.encode("utf-8", "backslashreplace").decode()
