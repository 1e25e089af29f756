"""Errors for users: each one says what is wrong, where, and what to do next."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Self


class GraftError(Exception):
    """A failure that the command line prints as one line, without a traceback; exit code 1."""

    exit_code = 1
    place: Mapping[str, object] = {}
    """Where it is about one record: the fields of a log line that say which (runtime/telemetry.py)."""


class ConfigurationError(GraftError, ValueError):
    """Settings or a project file that cannot be used: every fault at once; exit code 2.

    Each fault names the place, the value and what is allowed:
    ``graft.toml: distillation.like.weight must be in [0, 10], got -1``.
    """

    exit_code = 2

    def __init__(self, faults: Sequence[str]) -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join(self.faults))

    def __reduce__(self) -> tuple[type[Self], tuple[tuple[str, ...]]]:
        """From its faults, not from its text: so it comes whole out of a process of our own."""
        return type(self), (self.faults,)


class InvalidInputError(GraftError, ValueError):
    """A record, file or request that does not fit its contract; the text names field, value and what is allowed."""


class ServiceUnavailableError(GraftError, ConnectionError):
    """Kafka, Redis or another endpoint cannot be reached; the text names it (without secrets) and how to start it.

    `retry_after_seconds`: how long the service itself asks to be left alone; 0: it says nothing.
    """

    retry_after_seconds = 0.0


class DataLossError(GraftError):
    """Records that had not been read yet are gone from a topic; nothing goes on silently past such a gap."""


def first_line(error: BaseException) -> str:
    """What an error of a foreign library says first; its type's name where it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """``; did you mean NEAR?`` where a known name is near, else what is allowed."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1)
    if near:
        return f"; did you mean {near[0]}?"
    return f"; allowed are {', '.join(known)}" if known else ""
