"""Durations on the command line, such as 30d."""

import re

import click

_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


def age_seconds(_context: click.Context, _option: click.Parameter, value: str | None) -> int | None:
    """A click callback: `age_of`, where the option is given."""
    return None if value is None else age_of(value)


def age_of(text: str) -> int:
    """A duration such as 30d, in seconds; BadParameter for anything else."""
    match = re.fullmatch(r"(\d{1,9})([smhd])", text)
    if match is None:
        raise click.BadParameter(f"must be a number with s, m, h or d, such as 30d, got {text!r}")
    return int(match[1]) * _SECONDS[match[2]]
