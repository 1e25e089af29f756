"""How a command that runs many processes ends by Ctrl-C or SIGTERM."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import click

INTERRUPTED = 130
TERMINATED = 143


@contextmanager
def ended_by_signals(interrupted: int = INTERRUPTED, terminated: int = TERMINATED) -> Iterator[None]:
    """Ctrl-C and SIGTERM leave the block, which ends all that it started, and exit with these codes.

    Also where SIGINT was ignored when this process started, as a shell does for ``graft demo &``.
    """

    def terminate(_number: int, _frame: FrameType | None) -> None:
        sys.exit(terminated)

    before = {
        signal.SIGTERM: signal.signal(signal.SIGTERM, terminate),
        signal.SIGINT: signal.signal(signal.SIGINT, signal.default_int_handler),
    }
    try:
        yield
    except KeyboardInterrupt:
        click.echo("stopped", err=True)
        sys.exit(interrupted)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
