"""A time as the value of an option."""

import re
from datetime import UTC, datetime

import click

from graft.commands.age import age_of


def time_of(_context: click.Context, _option: click.Parameter, value: str | None) -> datetime | None:
    """A click callback: an ISO 8601 time, where the option is given; UTC where it names no zone."""
    return None if value is None else _time(value)


def moment_ms(option: str, value: str | None, now_ms: int) -> int | None:
    """A time such as 30d (ago) or in ISO 8601, in milliseconds since 1970; None of None."""
    if value is None:
        return None
    try:
        if re.fullmatch(r"\d+[a-z]", value):
            return now_ms - 1000 * age_of(value)
        return int(_time(value).timestamp() * 1000)
    except click.BadParameter as error:
        raise click.UsageError(f"{option}: {error.message}") from None


def _time(text: str) -> datetime:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        message = f"must be an ISO 8601 time such as 2026-01-31T12:00:00Z, got {text!r}"
        raise click.BadParameter(message) from None
    return time if time.tzinfo else time.replace(tzinfo=UTC)
