"""How --verbose and --quiet reach the process that a command begins."""

import click

LOG_LEVEL = "graft.log_level"
"""Under this name the command line keeps the level that it was given, for all its commands."""


def given_level() -> str | None:
    """The level of the running command line; None where it was given none, or no command line runs."""
    context = click.get_current_context(silent=True)
    level: str | None = context.meta.get(LOG_LEVEL) if context else None
    return level
