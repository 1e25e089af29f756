"""Reads the features of one request: the scorer's reader. User and context once, items from memory where they are.

The values are those in the hashes that Feast keeps in Redis. All requests share one connection. A read never waits for
a connection or longer than its time limit: without an answer what is not in memory takes its defaults.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from prometheus_client import Counter

from features.contract import ContextValue
from features.online.item_table import NOWHERE, ItemTable, TableLimits
from features.online.pipeline import Connection
from features.online.reader import Dated, Lookup, Query, Reply
from features.spec import ITEM_SOURCES, EntityId, FeatureBatch, FeatureSpec
from runtime.redis import parse_url

ITEMS = Counter("graft_scorer_items_total", "Items of requests, by where their features came from", ["source"])
_MEMORY, _REDIS, _OLD, _DEFAULT = (ITEMS.labels(source) for source in ("memory", "redis", "old", "default"))

DEFAULT_LIMITS = TableLimits()


class RequestRows(NamedTuple):
    """The B rows of a request, one per item."""

    batch: FeatureBatch
    slot_B: NDArray[np.intp]
    """Where each row's item stands in the reader's table; NOWHERE for one that does not."""
    stamp_B: NDArray[np.int64]
    """Equal stamps of one slot: equal categorical values of its item."""
    degraded: bool
    """Redis did not answer: stored values of the user, and of items that are not in the table, took their defaults."""


class AsyncOnlineReader:
    """The features of requests' rows. Belongs to the event loop of its first read."""

    def __init__(
        self, spec: FeatureSpec, redis_url: str, timeout_seconds: float, limits: TableLimits = DEFAULT_LIMITS
    ) -> None:
        self.spec = spec
        self.items = ItemTable(len(spec.dense_names), len(spec.categorical), limits)
        self._lookup = Lookup(spec)
        self._dated_lookup = Lookup(spec, {f.view for f in spec.features if f.view})
        self._connection = Connection(parse_url(redis_url), self._changed)
        self._timeout_seconds = timeout_seconds

    async def connect(self) -> None:
        """Try to connect, within the time limit; without Redis reads are degraded, and it is tried again and again."""
        await self._connection.begin(self._timeout_seconds)

    async def read(
        self, user_id: EntityId, item_ids: Sequence[EntityId], context: Mapping[str, ContextValue]
    ) -> RequestRows:
        """The rows of these items for the user; ids are of the spec's types.

        One round trip reads the user, and those of the items that are not in the table or not fresh. A fault of Redis
        raises nothing. The first read connects, within the same time limit.
        """
        if not self._connection.has_begun:
            await self.connect()
        items, now = self.items, asyncio.get_running_loop().time
        slot_B = items.slots_of(item_ids)
        stale_B = items.stale(slot_B, now())
        missing = list(dict.fromkeys([item_ids[row] for row in stale_B]))
        query = self._lookup.query([user_id], missing)
        commands = self._lookup.user_commands(query), self._lookup.item_commands(query)
        with items.reading(missing) as reading:
            exchange = self._connection.send(*commands) if any(commands) else None
            batch, stamp_B = items.rows(slot_B)  # while Redis reads
            replies = await self._connection.answer(exchange, self._timeout_seconds) if exchange else None
            replies = self._fitting(self._lookup, query, replies)
            degraded = replies is None and any(commands)
            following = iter(replies or [])
            values = self._lookup.request_values(query, following, context)
            if missing:
                read = self.spec.encode(self._lookup.item_columns(query, following), len(missing), ITEM_SOURCES)
                if not degraded:
                    items.store(reading, read, now(), told=exchange is not None and exchange.tracked > 0)
        if missing:
            new_B = stale_B[slot_B[stale_B] == NOWHERE] if degraded else stale_B
            places = {item_id: place for place, item_id in enumerate(missing)}
            place_B = [places[item_ids[row]] for row in new_B]
            batch.dense_BD[new_B], batch.categorical_BC[new_B] = read.dense_BD[place_B], read.categorical_BC[place_B]
            if not degraded:
                slot_B[new_B] = items.slots_of([item_ids[row] for row in new_B])
                stamp_B[new_B] = items.stamps_of(slot_B[new_B])
            _count(len(item_ids) - len(stale_B), len(stale_B), len(new_B), degraded=degraded)
        else:
            _MEMORY.inc(len(item_ids))
        _merge(batch, self.spec.encode_request(values))
        return RequestRows(batch, slot_B, stamp_B, degraded)

    async def read_dated(
        self, user_id: EntityId, item_ids: Sequence[EntityId], context: Mapping[str, ContextValue]
    ) -> tuple[Dated, bool]:
        """Raw values of these rows as Redis has them now, and when they begin; whether Redis did not answer.

        It takes longer than `read` and leaves the table as it is.
        """
        query = self._dated_lookup.query([user_id], item_ids)
        replies = await self._replies(self._dated_lookup.commands(query))
        replies = self._fitting(self._dated_lookup, query, replies)
        return self._dated_lookup.dated(query, replies or [], context), replies is None

    async def write(self, commands: Sequence[bytes]) -> bool:
        """Send commands that write; whether Redis has done them all."""
        return await self._replies(commands) is not None

    async def close(self) -> None:
        """End the connection; reads after it are degraded."""
        await self._connection.close()

    async def _replies(self, commands: Sequence[bytes]) -> list[Reply] | None:
        """None when Redis did not answer, or refused one."""
        if not self._connection.has_begun:
            await self.connect()
        exchange = self._connection.send(commands) if commands else None
        if exchange is None:
            return None if commands else []
        return await self._connection.answer(exchange, self._timeout_seconds)

    def _fitting(self, lookup: Lookup, query: Query, replies: list[Reply] | None) -> list[Reply] | None:
        """None where what has come are no replies to these commands."""
        if replies is None or lookup.fit(query, replies):
            return replies
        self._connection.note("it answers a read with what is no reply to it")
        return None

    def _changed(self, keys: Sequence[bytes] | None) -> None:
        """Redis tells of changed keys, or of none any more."""
        if keys is None:
            self.items.change_all()
            return
        for key in keys:
            if (item_id := self._lookup.item_of(key)) is not None:
                self.items.change(item_id)


def _merge(batch: FeatureBatch, request: FeatureBatch) -> None:
    """Put the request's one row into the items' rows: each column is 0, all its bits, in one of the two."""
    bits_BD = batch.dense_BD.view(np.uint32)
    np.bitwise_or(bits_BD, request.dense_BD.view(np.uint32), out=bits_BD)
    np.bitwise_or(batch.categorical_BC, request.categorical_BC, out=batch.categorical_BC)


def _count(fresh: int, stale: int, new: int, *, degraded: bool) -> None:
    _MEMORY.inc(fresh)
    if degraded:
        _OLD.inc(stale - new)
        _DEFAULT.inc(new)
    else:
        _REDIS.inc(stale)
