"""The topics that have dead letters, as a command line names them: without the project's prefix."""

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from stream.config import Topics

TOPIC = click.Choice(["impressions", "feedback", "examples", "teacher-requests", "used-logits"])
"""The dead letters of examples and used logits are skips alone."""


def topic_of(topics: "Topics", name: str) -> str:
    """The whole name of one of `TOPIC`."""
    return f"{topics.prefix}{name}"
