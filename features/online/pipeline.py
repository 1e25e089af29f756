"""One connection to Redis that many tasks of an event loop share: they pipeline their commands over it.

`redis.asyncio` costs several times as much per read. Where the server knows client-side caching
(https://redis.io/docs/latest/develop/reference/client-side-caching, RESP3, opt-in), it tells which keys have changed
since they were read.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, cast

import hiredis

from features.online.reader import Reply
from runtime.errors import ServiceUnavailableError
from runtime.outage import Outage
from runtime.redis import Address

_LOG = logging.getLogger(__name__)
_CONNECT_SECONDS = 2.0
_STALLED_SECONDS = 1.0  # a connection that owes a reply for so long is given up: reads then degrade at once

_TRACK_NEXT = b"*3\r\n$6\r\nCLIENT\r\n$7\r\nCACHING\r\n$3\r\nYES\r\n"
"""The command before one whose keys the server is to track; its reply is OK."""

Changed = Callable[[Sequence[bytes] | None], None]
"""Hears of tracked keys that have changed; None: of all that have ever been read, since nothing is told any more."""


class _Exchange:
    """Commands that wait for their replies. After its time is up it keeps its place: its replies must still be read."""

    __slots__ = ("due", "future", "pipeline", "replies", "started", "tracked")

    def __init__(self, due: int, tracked: int, pipeline: "_Pipeline", loop: asyncio.AbstractEventLoop) -> None:
        self.due = due
        self.tracked = tracked
        """Before so many of the last replies stands one that says OK."""
        self.pipeline = pipeline
        self.future: asyncio.Future[list[Reply] | None] = loop.create_future()
        self.started = loop.time()
        self.replies: list[Any] = []

    def end(self, replies: list[Reply] | None) -> None:
        if self.future.done():
            return
        if replies and self.tracked:
            first = len(replies) - 2 * self.tracked
            replies = replies[:first] + replies[first + 1 :: 2]
        self.future.set_result(replies)


class _Pipeline(asyncio.Protocol):
    """One connection. Redis answers in order, so the oldest exchange owns the next reply."""

    def __init__(self, changed: Changed, refused: Callable[[str], None]) -> None:
        self.lost = asyncio.Event()
        self._changed = changed
        self._refused = refused
        self._reader = hiredis.Reader()
        self._line: deque[_Exchange] = deque()
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        try:
            while (reply := self._reader.gets()) is not False:
                if isinstance(reply, hiredis.PushNotification):
                    self._hear(reply)
                else:
                    self._take(reply)
        except (hiredis.ProtocolError, IndexError) as error:
            _LOG.warning("Redis sent what is no reply to us; the connection is given up: %r", error)
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        for exchange in self._line:
            exchange.end(None)
        self._line.clear()
        self.lost.set()
        self._changed(None)

    def send(self, commands: Sequence[bytes], tracked: int = 0) -> _Exchange:
        """Write the commands, with `_TRACK_NEXT` before each of so many last ones.

        The exchange's future gets their replies, or None when the connection ends first.
        """
        loop = asyncio.get_running_loop()
        exchange = _Exchange(len(commands), tracked, self, loop)
        self._line.append(exchange)
        self._transport.write(b"".join(commands))
        return exchange

    def expire(self, exchange: _Exchange) -> None:
        """Answer the exchange with None now; give up a connection that is silent for too long."""
        exchange.end(None)
        if self._line and asyncio.get_running_loop().time() - self._line[0].started > _STALLED_SECONDS:
            self.abort()

    def abort(self) -> None:
        """Drop the connection at once."""
        self._transport.abort()

    def _hear(self, push: Sequence[Any]) -> None:
        """What the server tells unasked: after the reply that read a value, and before one that reads a newer one."""
        if push[0] == b"invalidate":
            self._changed(push[1])

    def _take(self, reply: Any) -> None:
        exchange = self._line[0]
        is_other_type = isinstance(reply, hiredis.ReplyError) and str(reply).startswith("WRONGTYPE")
        exchange.replies.append(None if is_other_type else reply)
        if len(exchange.replies) < exchange.due:
            return
        self._line.popleft()
        errors = [r for r in exchange.replies if isinstance(r, hiredis.ReplyError)]
        if errors:
            self._refused(str(errors[0]))
        exchange.end(None if errors else exchange.replies)


class Connection:
    """Keeps one pipeline to Redis open, in the background, for as long as it is wanted.

    `changed` hears of tracked keys that have changed, where the server tells of them, and of the connection's end.
    """

    def __init__(self, address: Address, changed: Changed) -> None:
        self._tracks = False
        self._address = address
        self._changed = changed
        self._pipeline: _Pipeline | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._redis = Outage("redis", "answers are degraded", stops_work=False)
        self._tried = asyncio.Event()
        self._refusal = ""  # the last one since the connection began, or ended

    async def begin(self, timeout_seconds: float) -> None:
        """Try to connect, unless that has been done; returns in time whether there is a connection or not."""
        if self._keeper is None:
            self._keeper = asyncio.create_task(self._keep())
        with suppress(TimeoutError):  # the keeper goes on
            async with asyncio.timeout(timeout_seconds):
                await self._tried.wait()

    @property
    def has_begun(self) -> bool:
        """Whether the first attempt to connect is over."""
        return self._tried.is_set()

    def send(self, commands: Sequence[bytes], tracked: Sequence[bytes] = ()) -> _Exchange | None:
        """Send commands, and others whose keys the server is to track; None without a connection."""
        if self._pipeline is None or self._pipeline.lost.is_set():
            return None
        if not self._tracks:
            return self._pipeline.send([*commands, *tracked])
        return self._pipeline.send([*commands, *(part for one in tracked for part in (_TRACK_NEXT, one))], len(tracked))

    async def answer(self, exchange: _Exchange, timeout_seconds: float) -> list[Reply] | None:
        """The commands' replies in order; None when there is an error among them, or no answer in time."""
        loop = asyncio.get_running_loop()
        timer = loop.call_later(timeout_seconds, exchange.pipeline.expire, exchange)
        try:
            return await exchange.future
        finally:
            timer.cancel()

    async def close(self) -> None:
        """End the connection, and connect no more."""
        self._tried.set()
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
            self._redis.forget()
        if self._pipeline is not None:
            self._pipeline.abort()
            await self._pipeline.lost.wait()
            self._pipeline = None

    async def _keep(self) -> None:
        while True:
            reason = await self._stay_connected()
            error = ServiceUnavailableError(f"Redis at {self._address} {reason}")
            await asyncio.sleep(self._redis.failed(error))

    async def _stay_connected(self) -> str:
        """Connect, and stay so until the connection ends; why it ended or could not be had."""
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):  # asyncio.wait_for may swallow a cancellation (Python 3.11)
                pipeline = await self._connect()
        except (OSError, _RefusedError) as error:
            self._tried.set()
            return f"does not let us in ({str(error) or type(error).__name__})"
        self._pipeline = pipeline
        self._refusal = ""
        self._redis.ended()
        self._tried.set()
        _LOG.debug("reading features from Redis at %s", self._address)
        await pipeline.lost.wait()
        self._pipeline = None
        return "ended the connection"

    async def _connect(self) -> _Pipeline:
        context = self._address.files.context() if self._address.tls else None
        _, pipeline = await asyncio.get_running_loop().create_connection(
            lambda: _Pipeline(self._changed, self.note), self._address.host, self._address.port, ssl=context
        )
        try:
            await self._log_in(pipeline)
            await self._ask_to_track(pipeline)
        except BaseException:
            pipeline.abort()
            raise
        return pipeline

    def note(self, refusal: str) -> None:
        """Log a refusal once, not at each request or each try to connect."""
        if refusal != self._refusal:
            _LOG.warning("Redis at %s refuses: %s", self._address, refusal)
        self._refusal = refusal

    async def _log_in(self, pipeline: _Pipeline) -> None:
        """Authenticate and choose the database; PING proves that the server takes commands."""
        login: tuple[str, ...] = ("AUTH", self._address.username or "default", self._address.password or "")
        words = [login] if self._address.password else []
        words += [("SELECT", str(self._address.db)), ("PING",)]
        commands = [hiredis.pack_command(cast("Any", command)) for command in words]
        if await pipeline.send(commands).future is None:
            raise _RefusedError("it refuses the password, the database or the connection")

    async def _ask_to_track(self, pipeline: _Pipeline) -> None:
        words = [("HELLO", "3"), ("CLIENT", "TRACKING", "ON", "OPTIN")]
        commands = [hiredis.pack_command(cast("Any", command)) for command in words]
        self._tracks = await pipeline.send(commands).future is not None
        if not self._tracks and not pipeline.lost.is_set():
            _LOG.warning(
                "Redis at %s does not tell of changes (HELLO 3, CLIENT TRACKING): what is cached is read anew only "
                "when it is old",
                self._address,
            )


class _RefusedError(Exception):
    """Redis answered, but refuses the password, the database or the connection."""
