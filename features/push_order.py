"""Lets no push overwrite a later one, whoever makes it: a process that stood still while others went on, above all.

Redis notes of which position in its updates each partition's last push was:

    key    graft:aggregates:{Feast project}:position:{partition}    value  the position

A push writes its rows and its positions in one transaction of Redis, and only while the noted positions are none later.
A process that has lost its partitions was given fewer updates than the one that has them now, or the same.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from runtime.errors import GraftError
from runtime.redis import WatchError

POSITION = "position"


class StalePushError(GraftError):
    """Redis has rows of a later position: another process has the partition by now. Nothing was written."""


def owner_key(feast_project: str) -> str:
    """Where Redis notes whose the pushed rows are."""
    return f"graft:aggregates:{feast_project}"


@contextmanager
def in_order(store: Any, feast_project: str, positions: Mapping[int, int]) -> Iterator[None]:
    """What Feast's `store` writes to Redis inside the block is of these positions, partition -> position.

    StalePushError for a write that comes too late.
    """
    online = store.provider.online_store
    connect = online._get_client  # noqa: SLF001 - Feast 0.67 writes without a condition, and offers no other hook
    online._get_client = lambda config: _OrderedClient(connect(config), feast_project, positions)  # noqa: SLF001
    try:
        yield
    except WatchError as error:
        raise StalePushError(f"another process pushes the aggregates of partitions {sorted(positions)}") from error
    finally:
        del online._get_client  # noqa: SLF001


class _OrderedClient:
    """Stands in for the client of Feast's online store, of which a write uses `pipeline` alone."""

    def __init__(self, client: Any, feast_project: str, positions: Mapping[int, int]) -> None:
        self._client = client
        self._positions = positions
        self._keys = {number: f"{owner_key(feast_project)}:{POSITION}:{number}" for number in positions}

    def pipeline(self, transaction: bool) -> Any:  # noqa: ARG002, FBT001 - redis-py's signature
        """Commands that are executed together with the notes of their positions, or not at all."""
        pipe = self._client.pipeline(transaction=True)
        pipe.watch(*self._keys.values())  # a change of one of these makes `execute` raise WatchError
        for (number, position), noted in zip(self._positions.items(), pipe.mget(*self._keys.values()), strict=True):
            if noted is not None and int(noted) > position:
                pipe.reset()
                raise StalePushError(
                    f"the running aggregates of partition {number} in Redis are of position {int(noted)} in its "
                    f"updates, later than {position}: another process has pushed them"
                )
        pipe.multi()
        for number, position in self._positions.items():
            pipe.set(self._keys[number], position)
        return pipe
