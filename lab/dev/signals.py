"""How a command that runs many processes ends by Ctrl-C or SIGTERM."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

import click

INTERRUPTED = 130
TERMINATED = 143

_raised: list[BaseException] = []
"""What the signals of this process have raised, the last one last."""


@contextmanager
def ended_by_signals(interrupted: int = INTERRUPTED, terminated: int = TERMINATED) -> Iterator[None]:
    """Ctrl-C and SIGTERM leave the block, which ends all that it started, and exit with these codes.

    Also where SIGINT was ignored when this process started, as a shell does for ``graft demo &``. What runs long in the
    block calls `end_if_asked` again and again.
    """

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        _raise(KeyboardInterrupt())

    def terminate(_number: int, _frame: FrameType | None) -> None:
        _raise(SystemExit(terminated))

    before = {
        signal.SIGTERM: signal.signal(signal.SIGTERM, terminate),
        signal.SIGINT: signal.signal(signal.SIGINT, interrupt),
    }
    try:
        yield
    except KeyboardInterrupt:
        click.echo("stopped", err=True)
        sys.exit(interrupted)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _raised.clear()


def end_if_asked() -> None:
    """Raise once more what a signal has raised, if it has raised anything.

    A signal's exception comes up wherever the main thread is, also within code that catches all exceptions: a coroutine
    of kafka-python does, even when it is only collected as garbage.
    """
    if _raised:
        raise _raised[-1]


def _raise(error: BaseException) -> NoReturn:
    _raised.append(error)
    raise error
