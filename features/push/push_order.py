"""Lets no push overwrite another owner's rows or a later push, whoever makes it: above all a process that stood still.

Redis notes whose the rows are, and of which position in its updates each partition's last push was:

    key    graft:aggregates:{Feast project}                         value  the owner
    key    graft:aggregates:{Feast project}:position:{partition}    value  the position

A push writes its rows and its positions in one transaction of Redis, and only while the owner is its own and no noted
position is later. A process that has lost its partitions has counted fewer updates than the one that has them now, or
as many.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from runtime.errors import GraftError
from runtime.redis import WatchError


class StalePushError(GraftError):
    """Redis has rows of a later position: another process has the partition by now. Nothing was written."""


def owner_key(feast_project: str) -> str:
    """Where Redis notes whose the rows are."""
    return f"graft:aggregates:{feast_project}"


def position_key(feast_project: str, partition: int | str) -> str:
    """Where Redis notes of which position a partition's last push was."""
    return f"{owner_key(feast_project)}:position:{partition}"


def taken_error(owner: str, found: str) -> GraftError:
    """Says that the rows are another owner's, and what to do."""
    return GraftError(
        f"the running aggregates in Redis belong to the stream of {found}, and this is the stream of {owner}: stop one "
        "of the two, or give each a Redis database or a Feast project of its own; to go on with this one, stop the "
        "other, then 'graft reset --aggregates'"
    )


@contextmanager
def in_order(store: Any, feast_project: str, owner: str, positions: Mapping[int, int]) -> Iterator[None]:
    """What Feast's `store` writes to Redis inside the block is `owner`'s, of these positions: partition -> position.

    StalePushError for a write that comes too late, GraftError where the rows are another owner's.
    """
    online = store.provider.online_store
    connect = online._get_client  # noqa: SLF001 - Feast 0.67 writes without a condition, and offers no other hook
    online._get_client = lambda config: OrderedClient(connect(config), feast_project, owner, positions)  # noqa: SLF001
    try:
        with too_late_is_stale(positions):
            yield
    finally:
        del online._get_client  # noqa: SLF001


@contextmanager
def too_late_is_stale(positions: Mapping[int, int]) -> Iterator[None]:
    """StalePushError where another process pushes while an `OrderedClient` writes inside the block."""
    try:
        yield
    except WatchError as error:
        raise StalePushError(f"another process pushes the aggregates of partitions {sorted(positions)}") from error


class OrderedClient:
    """A client whose pipelines write in order or raise as `in_order` says; Feast writes by these alone."""

    def __init__(self, client: Any, feast_project: str, owner: str, positions: Mapping[int, int]) -> None:
        self._client = client
        self._owner_key, self._owner = owner_key(feast_project), owner
        self._positions = {position_key(feast_project, number): (number, at) for number, at in positions.items()}

    def pipeline(self, transaction: bool) -> Any:  # noqa: ARG002, FBT001 - redis-py's signature
        """Commands that are executed together with the notes of their positions, or not at all."""
        keys = [self._owner_key, *self._positions]
        pipe = self._client.pipeline(transaction=True)
        pipe.watch(*keys)  # a change of one of these from here on makes `execute` raise WatchError
        try:
            owner, *noted = pipe.mget(keys)
            self._check(owner, noted)
        except GraftError:
            pipe.reset()
            raise
        pipe.multi()
        if owner is None:  # Redis was emptied
            pipe.set(self._owner_key, self._owner)
        for key, (_, position) in self._positions.items():
            pipe.set(key, position)
        return pipe

    def _check(self, owner: bytes | None, noted: list[bytes | None]) -> None:
        if owner is not None and owner.decode() != self._owner:
            raise taken_error(self._owner, owner.decode())
        for (number, position), found in zip(self._positions.values(), noted, strict=True):
            if found is not None and int(found) > position:
                raise StalePushError(
                    f"the running aggregates of partition {number} in Redis are of position {int(found)} in its "
                    f"updates, later than {position}: another process has pushed them"
                )
