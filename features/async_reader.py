"""Reads features for one request from the hashes that Feast keeps in Redis: the scorer's reader.

All requests share one connection, which they pipeline; `redis.asyncio` costs several times as much per read. A read
never waits for a connection or longer than its time limit: without an answer its row is degraded.
"""

import asyncio
import logging
import ssl
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, cast

import hiredis

from features.contract import ContextValue
from features.lookup import Columns, Lookup, Reply
from features.redis_layout import EntityId
from features.spec import FeatureSpec
from runtime.absence import Absence
from runtime.errors import ServiceUnavailableError
from runtime.redis import Address, parse_url

_LOG = logging.getLogger(__name__)
_CONNECT_SECONDS = 2.0
_STALLED_SECONDS = 1.0  # a connection that owes a reply for so long is given up: reads then degrade at once


class AsyncOnlineReader:
    """The features of one request's rows. Belongs to the event loop of its first read."""

    def __init__(self, spec: FeatureSpec, redis_url: str, timeout_seconds: float = 0.05) -> None:
        self.spec = spec
        self._lookup = Lookup(spec)
        self._connection = _Connection(parse_url(redis_url))
        self._timeout_seconds = timeout_seconds

    async def read(
        self, user_id: EntityId, item_ids: Sequence[EntityId], context: Mapping[str, ContextValue]
    ) -> tuple[Columns, bool]:
        """Columns of one row per item, and whether they are degraded: Redis did not answer, all stored values None.

        The user's and the context's columns have the one value that all rows share, which `FeatureSpec.encode` spreads.
        A fault of Redis raises nothing. The first read waits for the connection, within the same time limit.
        """
        query = self._lookup.query([user_id], item_ids)
        commands = self._lookup.commands(query)
        replies = await self._connection.exchange(commands, self._timeout_seconds) if commands else []
        return self._lookup.columns(query, replies or [], [context]), replies is None

    async def close(self) -> None:
        """End the connection; reads after it are degraded."""
        await self._connection.close()


class _Exchange:
    """Commands that wait for their replies. After its time is up it keeps its place: its replies must still be read."""

    __slots__ = ("due", "future", "replies", "started")

    def __init__(self, due: int, future: "asyncio.Future[list[Reply] | None]", started: float) -> None:
        self.due = due
        self.future = future
        self.started = started
        self.replies: list[Any] = []

    def end(self, replies: list[Reply] | None) -> None:
        if not self.future.done():
            self.future.set_result(replies)


class _Pipeline(asyncio.Protocol):
    """One connection. Redis answers in order, so the oldest exchange owns the next reply."""

    def __init__(self) -> None:
        self.lost = asyncio.Event()
        self._reader = hiredis.Reader()
        self._line: deque[_Exchange] = deque()
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        try:
            while (reply := self._reader.gets()) is not False:
                self._take(reply)
        except (hiredis.ProtocolError, IndexError) as error:
            _LOG.warning("Redis sent what is no reply to us; the connection is given up: %r", error)
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        for exchange in self._line:
            exchange.end(None)
        self._line.clear()
        self.lost.set()

    def send(self, commands: Sequence[bytes]) -> _Exchange:
        """Write the commands; the exchange's future gets their replies, or None when the connection ends first."""
        loop = asyncio.get_running_loop()
        exchange = _Exchange(len(commands), loop.create_future(), loop.time())
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

    def _take(self, reply: Any) -> None:
        exchange = self._line[0]
        is_other_type = isinstance(reply, hiredis.ReplyError) and str(reply).startswith("WRONGTYPE")
        exchange.replies.append(None if is_other_type else reply)
        if len(exchange.replies) < exchange.due:
            return
        self._line.popleft()
        errors = [r for r in exchange.replies if isinstance(r, hiredis.ReplyError)]
        if errors:
            _LOG.warning("Redis refuses: %s", errors[0])
        exchange.end(None if errors else exchange.replies)


class _Connection:
    """Keeps one pipeline to Redis open, in the background, for as long as it is wanted."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._pipeline: _Pipeline | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._redis = Absence("redis", "answers are degraded", stops_work=False)
        self._tried = asyncio.Event()
        """Set once the first attempt to connect is over."""

    async def exchange(self, commands: Sequence[bytes], timeout_seconds: float) -> list[Reply] | None:
        """The commands' replies in order; None when there is no connection, an error reply, or no answer in time."""
        deadline = asyncio.get_running_loop().time() + timeout_seconds
        if not self._tried.is_set():
            await self._first_try(timeout_seconds)
        if self._pipeline is None or self._pipeline.lost.is_set():
            return None
        return await _answer(self._pipeline, commands, deadline)

    async def close(self) -> None:
        self._tried.set()
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
            self._redis.forget()
        if self._pipeline is not None:
            self._pipeline.abort()
            await self._pipeline.lost.wait()
            self._pipeline = None

    async def _first_try(self, timeout_seconds: float) -> None:
        if self._keeper is None:
            self._keeper = asyncio.create_task(self._keep())
        with suppress(TimeoutError):  # then the read is degraded; the keeper goes on
            await asyncio.wait_for(self._tried.wait(), timeout_seconds)

    async def _keep(self) -> None:
        while True:
            reason = await self._stay_connected()
            error = ServiceUnavailableError(f"Redis at {self._address} {reason}")
            await asyncio.sleep(self._redis.failed(error))

    async def _stay_connected(self) -> str:
        """Connect, and stay so until the connection ends; why it ended or could not be had."""
        try:
            pipeline = await asyncio.wait_for(self._connect(), _CONNECT_SECONDS)
        except (OSError, _RefusedError) as error:
            self._tried.set()
            return f"does not let us in ({str(error) or type(error).__name__})"
        self._pipeline = pipeline
        self._redis.ended()
        self._tried.set()
        _LOG.debug("reading features from Redis at %s", self._address)
        await pipeline.lost.wait()
        self._pipeline = None
        return "ended the connection"

    async def _connect(self) -> _Pipeline:
        context = ssl.create_default_context() if self._address.tls else None
        _, pipeline = await asyncio.get_running_loop().create_connection(
            _Pipeline, self._address.host, self._address.port, ssl=context
        )
        try:
            await self._log_in(pipeline)
        except BaseException:
            pipeline.abort()
            raise
        return pipeline

    async def _log_in(self, pipeline: _Pipeline) -> None:
        """Authenticate and choose the database; PING proves that the server takes commands."""
        login: tuple[str, ...] = ("AUTH", self._address.username or "default", self._address.password or "")
        words = [login] if self._address.password else []
        words += [("SELECT", str(self._address.db)), ("PING",)]
        commands = [hiredis.pack_command(cast("Any", command)) for command in words]
        if await pipeline.send(commands).future is None:
            raise _RefusedError("it refuses the password, the database or the connection")


class _RefusedError(Exception):
    """Redis answered, but refuses the password, the database or the connection."""


async def _answer(pipeline: _Pipeline, commands: Sequence[bytes], deadline: float) -> list[Reply] | None:
    exchange = pipeline.send(commands)
    timer = asyncio.get_running_loop().call_at(deadline, pipeline.expire, exchange)
    try:
        return await exchange.future
    finally:
        timer.cancel()
