"""A time as the value of an option."""

import re
from datetime import UTC, datetime

import click

from graft.commands.age import age_seconds


def time_of(_context: click.Context, _option: click.Parameter, value: str | None) -> datetime | None:
    """An ISO 8601 time; UTC where it names no zone."""
    if value is None:
        return None
    try:
        time = datetime.fromisoformat(value)
    except ValueError:
        message = f"must be an ISO 8601 time such as 2026-01-31T12:00:00Z, got {value!r}"
        raise click.BadParameter(message) from None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def moment_ms(option: str, value: str | None, now_ms: int) -> int | None:
    """A time such as 30d (ago) or in ISO 8601, in milliseconds since 1970; None of None."""
    if value is None:
        return None
    try:
        if re.fullmatch(r"\d+[a-z]", value):
            return now_ms - 1000 * (age_seconds(click.get_current_context(), click.Option([option]), value) or 0)
        time = time_of(click.get_current_context(), click.Option([option]), value)
    except click.BadParameter as error:
        raise click.UsageError(f"{option}: {error.message}") from None
    return None if time is None else int(time.timestamp() * 1000)
