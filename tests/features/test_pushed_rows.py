"""Whose running aggregates Redis holds, with Feast's own push and the reader of the stream."""

import pytest

from features.aggregates import Aggregates
from features.online.reader import OnlineReader
from features.online.redis_layout import EntityLayout
from features.push.push_order import StalePushError
from features.push.pushed_rows import OwnedPusher, PushedRows
from features.push.pusher import FeastPusher
from features.repo.push_log import PushLog
from runtime.errors import GraftError
from runtime.redis import connect
from tests.features.examples import count_example

NOON_MS = 1_767_268_800_000
USER, ITEM = 1, "i3"
LIKED = {"like": 1.0, "rating": 5.0}


@pytest.fixture
def rows(applied, config):
    pusher = FeastPusher(applied.repo, applied.redis_url, config.aggregates)
    found = PushedRows(applied.redis_url, applied.spec, pusher.views, config.aggregates)
    found.remove()
    yield found
    found.remove()


@pytest.fixture
def pusher(applied, config, rows):
    return OwnedPusher(FeastPusher(applied.repo, applied.redis_url, config.aggregates), rows, PushLog({}, []))


def push(pusher, config, times, event_time_ms=NOON_MS, position=0):
    aggregates = Aggregates(config.aggregates)
    for _ in range(times):
        count_example(aggregates, USER, ITEM, LIKED, event_time_ms)
    return pusher.push(aggregates, aggregates.changed(), event_time_ms, {0: position})


def read(applied):
    columns = OnlineReader(applied.spec, applied.redis_url).read([USER], [ITEM], [{}])
    names = ("user_history:shown", "user_history:rating_sum", "item_history:like_rate", "users:age", "items:year")
    return [columns[name][0] for name in names]


def test_a_new_state_removes_anothers_rows_and_no_other_feature_and_its_own_earlier_times_count(
    applied, config, rows, pusher, caplog
):
    age, year = read(applied)[3:]
    assert None not in {age, year}
    pusher.claim("first", is_new=True)
    assert push(pusher, config, 3) == 2
    assert rows.count() == 2
    assert read(applied) == [3, 15.0, 1.0, age, year]

    pusher.claim("second", is_new=True)
    assert "2 rows of running aggregates of another stream, first, removed" in caplog.text
    assert read(applied) == [None, None, None, age, year]
    assert rows.count() == 0

    push(pusher, config, 1, NOON_MS - 3_600_000)  # a second replay of the same history begins earlier
    assert read(applied) == [1, 5.0, 1.0, age, year]


def test_a_state_that_goes_on_keeps_its_rows_also_those_of_earlier_versions_that_noted_no_owner(
    applied, config, rows, pusher
):
    pusher.claim("first", is_new=True)
    push(pusher, config, 2)
    for is_new in (False, True):  # True: another instance of the same state
        pusher.claim("first", is_new=is_new)
        assert read(applied)[0] == 2
    with connect(applied.redis_url) as client:
        client.delete(f"graft:aggregates:{applied.spec.feast_project}")
    pusher.claim("first", is_new=False)
    assert (read(applied)[0], rows.owner()) == (2, "first")


def test_who_has_lost_the_rows_pushes_none_and_cannot_claim_them_back_unseen(applied, config, rows, pusher):
    pusher.claim("first", is_new=True)
    other = OwnedPusher(pusher._pusher, rows, PushLog({}, []))
    other.claim("second", is_new=True)
    push(other, config, 1)
    with pytest.raises(GraftError, match=r"belong to the stream of second, and this is the stream of first: stop one"):
        push(pusher, config, 5)
    with pytest.raises(GraftError, match="graft reset --aggregates"):
        pusher.claim("first", is_new=False)
    assert read(applied)[0] == 1
    rows.remove()
    pusher.claim("first", is_new=False)
    push(pusher, config, 5)
    assert read(applied)[0] == 5


def test_a_process_that_stood_still_does_not_overwrite_what_another_one_has_pushed_since(applied, config, rows, pusher):
    pusher.claim("first", is_new=True)
    push(pusher, config, 2, position=8)
    with pytest.raises(StalePushError, match="partition 0 in Redis are of position 8 in its updates, later than 7"):
        push(pusher, config, 1, position=7)
    assert read(applied)[0] == 2


@pytest.mark.parametrize("name", ["second", "first"])  # the same one: on a broker whose topics have no ids
def test_a_state_that_begins_anew_pushes_from_its_first_position_on(applied, config, rows, pusher, name):
    pusher.claim("first", is_new=True)
    push(pusher, config, 2, position=8)
    pusher.claim(name, is_new=True)
    push(pusher, config, 1, position=1)
    assert read(applied)[0] == 1


def test_an_emptied_redis_takes_the_owner_s_rows_again(applied, config, rows, pusher):
    pusher.claim("first", is_new=True)
    rows.remove()
    push(pusher, config, 1)
    assert (read(applied)[0], rows.owner()) == (1, "first")


def test_an_entity_whose_state_has_left_loses_its_row_and_no_other_feature(applied, config, rows, pusher):
    age, year = read(applied)[3:]
    pusher.claim("first", is_new=True)
    decaying = [
        one.model_copy(update={"half_life_seconds": 60.0} if one.entity == "item" else {}) for one in config.aggregates
    ]
    aggregates = Aggregates(decaying)
    count_example(aggregates, USER, ITEM, LIKED, NOON_MS)
    pusher.push(aggregates, aggregates.changed(), NOON_MS, {0: 5})
    assert read(applied) == [1, 5.0, 1.0, age, year]

    assert aggregates.evict(NOON_MS + 20 * 60_000) == [("item", ITEM)]
    with pytest.raises(StalePushError, match="later than 4"):
        pusher.push(aggregates, {"item": [ITEM]}, NOON_MS, {0: 4})
    assert read(applied) == [1, 5.0, 1.0, age, year]
    pusher.push(aggregates, aggregates.changed(), NOON_MS, {0: 5})
    assert read(applied) == [1, 5.0, None, age, year]


def test_only_keys_of_the_same_project_join_key_and_id_type_are_an_entitys():
    mine = EntityLayout("a", "user_id", "str", [])
    for entity_id in ("", "7", "ba", "*", "a"):
        assert mine.has(mine.key(entity_id))
        for other in (EntityLayout("ba", "user_id", "str", []), EntityLayout("a", "item_id", "str", [])):
            assert not mine.has(other.key(entity_id))
    assert not mine.has(EntityLayout("a", "user_id", "int", []).key(7))
    assert not mine.has(b"graft:aggregates:a")
