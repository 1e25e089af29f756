"""Durations on the command line, such as 30d."""

import re

import click

_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


def age_seconds(_context: click.Context, _option: click.Parameter, value: str | None) -> int | None:
    """A click callback: a duration such as 30d, in seconds."""
    if value is None:
        return None
    match = re.fullmatch(r"(\d{1,9})([smhd])", value)
    if match is None:
        raise click.BadParameter(f"must be a number with s, m, h or d, such as 30d, got {value!r}")
    return int(match[1]) * _SECONDS[match[2]]
