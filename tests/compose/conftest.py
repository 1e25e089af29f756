"""The stack, up once for all tests of this folder."""

import sys
from collections.abc import Iterator

import pytest

from tests.compose.stack import SCALE, compose


@pytest.fixture(scope="session")
def stack() -> Iterator[None]:
    """The stack, up and healthy; its logs are printed at the end, and it leaves no volume behind."""
    _remove()  # what a run has left that was killed
    compose("build", seconds=1200)
    try:
        compose("up", "--wait", "--wait-timeout", "540", *SCALE, seconds=600)
        yield
    finally:
        sys.stderr.write(compose("logs", "--no-color", "--tail", "40"))
        _remove()


@pytest.fixture(scope="session")
def replayed(stack: None) -> str:
    """What the replay of the pair's events said."""
    return compose("run", "--rm", "-T", "replay", "/project/events.jsonl", seconds=300)


def _remove() -> None:
    """Containers and volumes, also those of profiles that are not in use."""
    compose("--profile", "*", "down", "--volumes", "--remove-orphans")
