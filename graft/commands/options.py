"""What commands share: options, arguments of one form, and how they print results."""

import json
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from runtime.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from features.config import ContextFeature
    from stream.config import Topics

_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}

json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
map_option = click.option(
    "--map", "mapped", multiple=True, metavar="ROLE=COLUMN", help="user, item, time, impression or context is COLUMN."
)
label_option = click.option(
    "--label", "labels", multiple=True, metavar="'NAME = ...'", help="A task, such as 'liked = rating >= 4'."
)
context_option = click.option(
    "--context", multiple=True, metavar="NAME=VALUE", help="A value of the context; may be given repeatedly."
)
TOPIC = click.Choice(["impressions", "feedback", "examples", "teacher-requests"])
"""A topic that has dead letters, without the project's prefix. Those of the last two are skips alone."""


def echo_json(value: Any) -> None:
    """One JSON document on standard output."""
    click.echo(json.dumps(value, indent=1))


def echo_result(lines: list[str], value: Any, *, as_json: bool) -> None:
    """A result for people, or as JSON."""
    if as_json:
        echo_json(value)
    else:
        click.echo("\n".join(lines))


def moment(time_ms: int) -> str:
    """A time in milliseconds since 1970 as ISO 8601, in UTC."""
    return datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="seconds")


def topic_of(topics: "Topics", name: str) -> str:
    """The whole name of one of `TOPIC`."""
    return f"{topics.prefix}{name}"


def age_seconds(_context: click.Context, _option: click.Parameter, value: str | None) -> int | None:
    """A click callback: a duration such as 30d in seconds, where the option is given."""
    return None if value is None else _age(value)


def time_of(_context: click.Context, _option: click.Parameter, value: str | None) -> datetime | None:
    """A click callback: an ISO 8601 time, where the option is given; UTC where it names no zone."""
    return None if value is None else _time(value)


def moment_ms(option: str, value: str | None, now_ms: int) -> int | None:
    """A time such as 30d (ago) or in ISO 8601, in milliseconds since 1970; None of None."""
    if value is None:
        return None
    try:
        if re.fullmatch(r"\d+[a-z]", value):
            return now_ms - 1000 * _age(value)
        return int(_time(value).timestamp() * 1000)
    except click.BadParameter as error:
        raise click.UsageError(f"{option}: {error.message}") from None


def _age(text: str) -> int:
    match = re.fullmatch(r"(\d{1,9})([smhd])", text)
    if match is None:
        raise click.BadParameter(f"must be a number with s, m, h or d, such as 30d, got {text!r}")
    return int(match[1]) * _SECONDS[match[2]]


def _time(text: str) -> datetime:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        message = f"must be an ISO 8601 time such as 2026-01-31T12:00:00Z, got {text!r}"
        raise click.BadParameter(message) from None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def context_of(given: tuple[str, ...], declared: "Mapping[str, ContextFeature]") -> dict[str, Any]:
    """The values by name, each of the type that graft.toml declares; InvalidInputError for what it does not declare."""
    types = {"int": int, "float": float, "str": str}
    context = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or name not in declared:
            allowed = ", ".join(declared) or "none: the project has no [features.context]"
            raise InvalidInputError(f"--context: must be NAME=VALUE with a name of {allowed}, got {text!r}")
        kind = declared[name].dtype
        try:
            context[name] = types[kind](value)
        except ValueError:
            raise InvalidInputError(f"--context: {name} must be of the type {kind}, got {value!r}") from None
    return context


def columns_given(mapped: tuple[str, ...]) -> dict[str, list[str]]:
    """Of `--map`, role -> columns; InvalidInputError for what is no ROLE=COLUMN."""
    given: dict[str, list[str]] = {}
    for text in mapped:
        role, equals, column = text.partition("=")
        role = role.strip()
        if not equals or (not column and role != "context"):
            raise InvalidInputError(f"--map {text!r}: must be ROLE=COLUMN, such as time=purchased_at")
        columns = given.setdefault(role, [])
        if column:
            columns += column.split(",") if role == "context" else [column]
    return given
