"""How commands print results."""

import json
from datetime import UTC, datetime
from typing import Any

import click

json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")


def moment(time_ms: int) -> str:
    """A time in milliseconds since 1970 as ISO 8601, in UTC."""
    return datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="seconds")


def echo_json(value: Any) -> None:
    """One JSON document on standard output."""
    click.echo(json.dumps(value, indent=1))


def echo_result(lines: list[str], value: Any, *, as_json: bool) -> None:
    """A result for people, or as JSON."""
    if as_json:
        echo_json(value)
    else:
        click.echo("\n".join(lines))
