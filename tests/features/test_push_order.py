"""No push overwrites a later one: on a real Redis, with what stands in for Feast's client between watch and write."""

import inspect
from types import SimpleNamespace

import pytest
from feast.infra.online_stores.redis import RedisOnlineStore

from features.push.push_order import StalePushError, in_order, owner_key
from runtime.errors import GraftError
from runtime.redis import WatchError, connect

PROJECT, OWNER = "ordered", "join-state"


@pytest.fixture
def client(own_redis):
    with connect(own_redis.url) as made:
        made.set(owner_key(PROJECT), OWNER)
        yield made


def test_feast_still_gets_each_client_by_the_private_method_that_is_replaced():
    assert list(inspect.signature(RedisOnlineStore._get_client).parameters) == ["self", "online_store_config"]
    for write in (RedisOnlineStore.online_write_batch, RedisOnlineStore.delete_entity_values):
        assert "_get_client(" in inspect.getsource(write)


def store(client):
    """A feature store whose online store writes to `client`."""
    return SimpleNamespace(provider=SimpleNamespace(online_store=Online(client)))


class Online:
    def __init__(self, client):
        self._client = client

    def _get_client(self, _config):
        return self._client

    def begin(self, value):
        """A write up to its execution."""
        pipe = self._get_client(None).pipeline(transaction=False)
        pipe.hset("row", "value", value)
        return pipe


def push(client, value, positions):
    feast = store(client)
    with in_order(feast, PROJECT, OWNER, positions):
        feast.provider.online_store.begin(value).execute()


def row(client):
    return client.hget("row", "value")


def test_a_later_push_and_the_same_again_are_written(client):
    for value, position in ((b"a", 3), (b"b", 3), (b"c", 4)):
        push(client, value, {0: position})
        assert row(client) == value


def test_a_push_of_an_earlier_position_writes_nothing_and_says_of_which_partition(client):
    push(client, b"new", {0: 3, 1: 7})
    with pytest.raises(StalePushError, match="partition 1 in Redis are of position 7 in its updates, later than 6"):
        push(client, b"old", {0: 4, 1: 6})
    assert row(client) == b"new"
    push(client, b"newer", {0: 3, 1: 7})  # the refused push has noted nothing, not of partition 0 either


def test_a_push_that_was_under_way_when_a_later_one_came_writes_nothing(client):
    """It has looked at the positions and stands still; so no look before the write can be enough."""
    late = store(client)
    with in_order(late, PROJECT, OWNER, {0: 3}):
        begun = late.provider.online_store.begin(b"old")
        push(client, b"new", {0: 4})
        with pytest.raises(WatchError):
            begun.execute()
    assert row(client) == b"new"


def test_such_a_push_is_told_as_a_stale_one():
    with (
        pytest.raises(StalePushError, match=r"another process pushes the aggregates of partitions \[0\]"),
        in_order(store(None), PROJECT, OWNER, {0: 3}),
    ):
        raise WatchError


def test_pushes_of_different_partitions_do_not_disturb_each_other(client):
    first = store(client)
    with in_order(first, PROJECT, OWNER, {0: 3}):
        begun = first.provider.online_store.begin(b"first")
        push(client, b"second", {1: 1})
        begun.execute()
    assert row(client) == b"first"


def test_what_is_written_outside_the_block_has_no_condition(client):
    feast = store(client)
    with in_order(feast, PROJECT, OWNER, {0: 3}):
        pass
    assert feast.provider.online_store._get_client(None) is client


def test_a_push_that_was_under_way_when_another_state_took_the_rows_writes_nothing(client):
    late = store(client)
    with in_order(late, PROJECT, OWNER, {0: 3}):
        begun = late.provider.online_store.begin(b"old")
        client.set(owner_key(PROJECT), "another")
        with pytest.raises(WatchError):
            begun.execute()
    with pytest.raises(GraftError, match="belong to the stream of another, and this is the stream of join-state"):
        push(client, b"old", {0: 3})
    assert row(client) is None
