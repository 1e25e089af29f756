"""A time as the value of an option."""

from datetime import UTC, datetime

import click


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
