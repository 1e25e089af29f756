"""Streaming aggregates, through Feast's push into Redis and back through the reader."""

import pytest
from feast.feature_store import FeatureStore

from features.aggregates import Aggregates
from features.online.reader import OnlineReader
from features.push.pusher import FeastPusher
from runtime.errors import ServiceUnavailableError
from runtime.redis import connect
from tests.features.examples import count_example

NOON_MS = 1_767_268_800_000
LIKED, PASSED = {"like": 1.0, "rating": 5.0}, {"like": 0.0, "rating": None}


@pytest.fixture
def aggregates(config):
    return Aggregates(config.aggregates)


@pytest.fixture
def pusher(applied, config):
    return FeastPusher(applied.repo, applied.redis_url, config.aggregates)


def history(applied, user_id, item_id):
    columns = OnlineReader(applied.spec, applied.redis_url).read([user_id], [item_id], [{}])
    return [
        columns[name][0]
        for name in (
            "user_history:shown",
            "user_history:like_rate",
            "user_history:rating_sum",
            "item_history:like_rate",
        )
    ]


def test_pushed_aggregates_are_read_back(applied, aggregates, pusher):
    assert history(applied, 500, "pushed") == [None, None, None, None]

    count_example(aggregates, 500, "pushed", LIKED, NOON_MS)
    count_example(aggregates, 500, "other", PASSED, NOON_MS)
    assert pusher.push(aggregates, aggregates.changed(), NOON_MS) == 3

    assert history(applied, 500, "pushed") == [2, 0.5, 5.0, 1.0]


def test_a_push_at_the_same_event_time_is_not_lost(applied, aggregates, pusher):
    for count in (1, 2, 3):
        count_example(aggregates, 501, "same", LIKED, NOON_MS)
        pusher.push(aggregates, aggregates.changed(), NOON_MS)
        assert history(applied, 501, "same")[0] == count


def test_a_repeated_push_changes_nothing(applied, aggregates, pusher):
    count_example(aggregates, 502, "again", LIKED, NOON_MS)
    changed = aggregates.changed()
    pusher.push(aggregates, changed, NOON_MS)
    once = history(applied, 502, "again")

    assert pusher.push(aggregates, changed, NOON_MS - 10_000) == 2
    assert history(applied, 502, "again") == once


def test_a_push_leaves_the_batch_views_of_the_same_hash_alone(applied, aggregates, pusher):
    count_example(aggregates, 1, "i1", LIKED, NOON_MS)
    pusher.push(aggregates, aggregates.changed(), NOON_MS)

    columns = OnlineReader(applied.spec, applied.redis_url).read([1], ["i1"], [{}])
    assert columns["users:city"] == [""]
    assert columns["user_history:shown"] == [1]


def test_ids_that_cannot_be_join_keys_are_not_pushed(aggregates, pusher):
    count_example(aggregates, "a string", 7, LIKED, NOON_MS)

    assert pusher.push(aggregates, aggregates.changed(), NOON_MS) == 0


def test_a_push_without_redis_says_so(applied, config, aggregates):
    pusher = FeastPusher(applied.repo, "redis://127.0.0.1:1/0", config.aggregates)
    count_example(aggregates, 1, "i1", LIKED, NOON_MS)

    with pytest.raises(ServiceUnavailableError, match=r"Redis at redis://127.0.0.1:1/0 does not answer"):
        pusher.push(aggregates, aggregates.changed(), NOON_MS)


def test_feast_is_opened_once(applied, config, aggregates, pusher, monkeypatch):
    monkeypatch.setattr(FeatureStore, "__init__", lambda *_, **__: pytest.fail("a second FeatureStore"))
    count_example(aggregates, 503, "once", LIKED, NOON_MS)

    assert pusher.push(aggregates, aggregates.changed(), NOON_MS) == 2


def test_a_push_waits_for_a_key_of_another_type_to_go(applied, aggregates, pusher):
    count_example(aggregates, 503, "foreign", LIKED, NOON_MS)
    pusher.push(aggregates, aggregates.changed(), NOON_MS)
    with connect(applied.redis_url) as client:
        (key,) = (key for key in client.scan_iter() if b"foreign" in key)
        client.delete(key)
        client.set(key, "no hash")
        with pytest.raises(
            ServiceUnavailableError, match=r"(?s)refuses for now: .*foreign.*WRONGTYPE.*; remove that key$"
        ):
            pusher.push(aggregates, aggregates.changed(), NOON_MS)
        client.delete(key)
    pusher.push(aggregates, aggregates.changed(), NOON_MS)
    assert history(applied, 503, "foreign")[3] == 1
