"""How long requests compute in one pass of the event loop before it looks at what has come meanwhile."""

import asyncio
import time
from collections import deque

_PASS_SECONDS = 0.004


class Turns:
    """Bounds what is computed in one pass of the event loop; what is left waits for the next ones, first come first.

    Without that all requests whose features have arrived are computed in one pass, and every other one, a refusal too,
    waits for all of them.
    """

    def __init__(self) -> None:
        self._end: float | None = None
        """By time.monotonic: when no further request begins in this pass; None where none has computed in it."""
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def wait(self) -> None:
        """Return when this request may compute: at once, unless those before it have taken the pass' time."""
        loop = asyncio.get_running_loop()
        if self._waiting or (self._end is not None and time.monotonic() >= self._end):
            turn = loop.create_future()
            self._waiting.append(turn)
            await turn
        if self._end is None:
            self._end = time.monotonic() + _PASS_SECONDS
            loop.call_soon(self._next_pass, loop)

    def _next_pass(self, loop: asyncio.AbstractEventLoop) -> None:
        self._end = None
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():  # done: its request was cancelled
                turn.set_result(None)
                break
        if self._waiting:
            self._end = time.monotonic() + _PASS_SECONDS
            loop.call_soon(self._next_pass, loop)
