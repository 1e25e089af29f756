"""The stream's reader, on hashes laid out by hand."""

import pytest

from features.online.reader import OnlineReader
from features.online.redis_layout import EntityLayout
from runtime.errors import ServiceUnavailableError
from runtime.redis import connect


def test_a_batch_costs_one_command_per_distinct_entity(own_redis, small_spec, store_small):
    store_small(own_redis.url, 10)
    reader = OnlineReader(small_spec, own_redis.url)
    with connect(own_redis.url) as client:
        client.config_resetstat()

        columns = reader.read([1, 1, 2] * 50, [5] * 150, [{}] * 150)

        assert client.info("commandstats")["cmdstat_hmget"]["calls"] == 3
    assert columns == {"users:number": [1, 1, 2] * 50, "items:number": [5] * 150}


def test_a_dead_redis_is_named_and_its_return_is_noticed(own_redis, small_spec, store_small):
    store_small(own_redis.url, 10)
    reader = OnlineReader(small_spec, own_redis.url)
    reader.read([1], [1], [{}])
    own_redis.process.kill()
    own_redis.process.wait()

    with pytest.raises(ServiceUnavailableError, match=f"Redis at {own_redis.url} does not answer"):
        reader.read([1], [1], [{}])

    own_redis.restart()
    store_small(own_redis.url, 10)
    assert reader.read([1], [2], [{}]) == {"users:number": [1], "items:number": [2]}
    reader.close()


def test_a_redis_that_came_back_between_two_reads_is_not_even_noticed(own_redis, small_spec, store_small):
    store_small(own_redis.url, 10)
    reader = OnlineReader(small_spec, own_redis.url)
    reader.read([1], [1], [{}])
    own_redis.restart()
    store_small(own_redis.url, 10)

    assert reader.read([1], [2], [{}]) == {"users:number": [1], "items:number": [2]}
    reader.close()


def test_a_password_and_a_database_are_used(own_redis, small_spec, store_small):
    with connect(own_redis.url) as client:
        client.config_set("requirepass", "s3cret")
    url = own_redis.url.replace("redis://", "redis://:s3cret@").removesuffix("0") + "2"
    store_small(url, 10)

    assert OnlineReader(small_spec, url).read([3], [4], [{}]) == {"users:number": [3], "items:number": [4]}


def test_a_key_of_another_type_is_a_miss_and_the_other_rows_are_read(own_redis, small_spec, store_small):
    store_small(own_redis.url, 10)
    layout = EntityLayout(small_spec.feast_project, small_spec.user_join_key, small_spec.user_id_type, [])
    with connect(own_redis.url) as client:
        client.delete(layout.key(2))
        client.set(layout.key(2), "no hash")
    reader = OnlineReader(small_spec, own_redis.url)
    assert reader.read([1, 2, 3], [4, 4, 4], [{}] * 3) == {"users:number": [1, None, 3], "items:number": [4, 4, 4]}
    assert reader.read([3], [4], [{}]) == {"users:number": [3], "items:number": [4]}
    reader.close()
