"""Remembered ids against a dict: each is known exactly until its time has passed, over any restarts."""

import gc

from hypothesis import given, settings
from hypothesis import strategies as st

from stream.join import remembered
from stream.join.remembered import RememberedIds
from tests.stream.pair import save

FEW = settings(deadline=None, max_examples=100)


def names(count, first=0):
    return [f"i{number}" for number in range(first, first + count)]


def restored(state, watermark_ms):
    made = RememberedIds()
    made.restore(state, watermark_ms)
    return made


steps = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(0, 40), st.integers(0, 300)),
        st.tuples(st.just("forget"), st.integers(0, 100), st.just(0)),
        st.tuples(st.just("restart"), st.just(0), st.just(0)),
    ),
    max_size=200,
)


@FEW
@given(steps, st.integers(1, 5))
def test_each_id_is_known_until_its_time_has_passed_whatever_the_order_and_the_restarts(steps, segment_ids):
    kept, remembered._SEGMENT_IDS = remembered._SEGMENT_IDS, segment_ids
    try:
        follow(steps)
    finally:
        remembered._SEGMENT_IDS = kept


def follow(steps):
    ids, state, expected, watermark_ms = RememberedIds(), {}, {}, 0
    for kind, number, after_ms in steps:
        if kind == "add" and f"i{number}" not in expected:
            expected[f"i{number}"] = watermark_ms + after_ms
            ids.add(f"i{number}", watermark_ms + after_ms)
        elif kind == "forget":
            watermark_ms += number
            ids.forget(watermark_ms, 1_000)
            expected = {one: ms for one, ms in expected.items() if ms >= watermark_ms}
        elif kind == "restart":
            ids = restored(save(state, ids.changes()), watermark_ms)
        assert [one in ids for one in names(41)] == [one in expected for one in names(41)]
    ids.forget(10**9, 1_000)
    assert save(state, ids.changes()) == {}


def test_a_restart_with_an_id_that_was_forgotten_and_came_again_knows_the_new_one():
    ids = RememberedIds()
    ids.add("other", 500)
    ids.add("again", 10)
    state = save({}, ids.changes())
    ids.forget(11, 1_000)
    ids = restored(save(state, ids.changes()), 11)
    ids.add("again", 400)
    ids = restored(save(state, ids.changes()), 12)
    ids.forget(400, 1_000)
    assert "again" in ids
    ids.forget(401, 1_000)
    assert "again" not in ids
    assert "other" in ids


def test_ids_are_saved_many_in_an_entry_and_what_a_transaction_deletes_is_bounded(monkeypatch):
    monkeypatch.setattr(remembered, "_MOST_DELETED", 3)
    ids, state = RememberedIds(), {}
    for number, name in enumerate(names(1_280)):
        ids.add(name, number)
    assert len(save(state, ids.changes())) == 10
    ids.forget(1_279, 1_000)
    deleted = [len(ids.changes()) for _ in range(4)]
    assert deleted == [3, 3, 3, 0]
    assert "i1279" in ids


def test_one_call_forgets_the_ids_of_so_many_segments_and_the_next_one_goes_on():
    ids = RememberedIds()
    for number, name in enumerate(names(1_280)):
        ids.add(name, number)
    assert [ids.forget(10**9, 4), "i511" in ids, "i512" in ids] == [4, False, True]
    assert [ids.forget(10**9, 1_000), "i1279" in ids] == [6, False]


def test_what_a_transaction_did_not_delete_yet_is_deleted_after_a_restart():
    ids = RememberedIds()
    ids.add("one", 5)
    state = save({}, ids.changes())
    ids.forget(6, 1_000)
    ids = restored(state, 6)
    assert "one" not in ids
    assert save(state, ids.changes()) == {}


def test_the_ids_that_an_earlier_version_saved_one_by_one_are_remembered_and_forgotten():
    state = {"closed:i1": b"10", "closed:a:b": b"20", "position": b"{}"}
    ids = restored(state, 0)
    assert "i1" in ids
    ids.add("new", 30)
    assert ids.entry("closed:a:b") == b'[["a:b"],[20]]'
    save(state, [("closed:a:b", ids.entry("closed:a:b"))])  # as the log's cleaning writes it anew
    ids.forget(20, 1_000)
    ids = restored(save(state, ids.changes()), 20)
    assert [name in ids for name in ("i1", "a:b", "new")] == [False, True, True]
    ids.forget(31, 1_000)
    assert save(state, ids.changes()) == {"position": b"{}"}


def test_the_garbage_collector_does_not_look_into_the_ids():
    """With ten million it would take seconds at each of its rounds."""
    ids = RememberedIds()
    for number, name in enumerate(names(10_000)):
        ids.add(name, number)
    made = restored(save({}, ids.changes()), 0)
    gc.collect()
    for one in (ids, made):
        assert not gc.is_tracked(one._ids)
        assert not any(gc.is_tracked(segment.ids) for segment in one._segments.values())
