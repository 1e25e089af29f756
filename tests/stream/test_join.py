"""The join's properties: whatever the order, the batches and the restarts, the same examples, each once."""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from stream.events import Feedback, TeacherRequest
from stream.join.join import MAX_WAITING_BYTES, Join
from stream.messages import Message
from tests.stream.pair import TASKS, save

FEW = settings(deadline=None, max_examples=60)  # the machine may be busy

LIKE_MS, RATING_MS = 20_000, 60_000
DEDUP_SECONDS = 1_000.0
LATENESS_MS = RATING_MS - LIKE_MS  # a like that is this late still comes before its impression closes


def request(number, at=0):
    return TeacherRequest(
        impression_id=f"i{number}", user_id=1, item_id="a", event_time_ms=at, context={}, spec_id="s", features=[1, "a"]
    )


def feedback(number, task, value, at):
    return Feedback(impression_id=f"i{number}", task=task, value=value, event_time_ms=at)


def message(event, offset=0):
    return Message(
        "topic", 0, offset, event.impression_id.encode(), event.model_dump_json().encode(), (("h", b"\xff"),)
    )


def feed(join, event, watermark_ms=None):
    (join.impression if isinstance(event, TeacherRequest) else join.feedback)(event, message(event))
    join.advance(watermark_ms)


def labels_after(*events, watermark_ms=10**9):
    join = Join(TASKS, DEDUP_SECONDS)
    for event in events:
        feed(join, event)
    join.advance(watermark_ms)
    joined = join.drain()
    return [e.labels for e in joined.examples], [d.code for d in joined.dead_letters]


def test_without_feedback_a_binary_label_is_0_and_a_regression_label_is_none():
    assert labels_after(request(1)) == ([{"like": 0.0, "rating": None}], [])


def test_the_last_value_by_event_time_holds_whatever_the_order():
    first, last = feedback(1, "rating", 2, 100), feedback(1, "rating", 5, 200)
    expected = ([{"like": 0.0, "rating": 5.0}], [])
    assert labels_after(request(1), first, last) == expected
    assert labels_after(request(1), last, first) == expected


def test_each_task_has_its_own_window_whose_end_still_counts():
    in_time = labels_after(request(1), feedback(1, "like", 1, LIKE_MS), feedback(1, "rating", 3, RATING_MS))
    assert in_time == ([{"like": 1.0, "rating": 3.0}], [])
    late = labels_after(request(1), feedback(1, "like", 1, LIKE_MS + 1), feedback(1, "rating", 3, RATING_MS + 1))
    assert late == ([{"like": 0.0, "rating": None}], ["outside_window", "outside_window"])


def test_feedback_before_its_impression_waits_for_it():
    assert labels_after(feedback(1, "like", 1, 5), request(1)) == ([{"like": 1.0, "rating": None}], [])


def test_an_orphan_expires_into_the_dead_letters_with_its_bytes():
    join = Join(TASKS, DEDUP_SECONDS)
    orphan = feedback(1, "like", 1, 5)
    join.feedback(orphan, message(orphan, offset=7))
    join.advance(5 + RATING_MS)
    assert join.drain().dead_letters == []
    join.advance(5 + RATING_MS + 1)
    (letter,) = join.drain().dead_letters
    assert letter.code == "no_impression"
    assert letter.message == message(orphan, offset=7)


def test_feedback_that_comes_after_other_feedback_has_its_own_whole_wait_for_the_impression_in_a_pause():
    join = Join(TASKS, DEDUP_SECONDS, idle_seconds=1)
    first, second = feedback(1, "like", 0, 5), feedback(1, "like", 1, 9)
    join.feedback(first, message(first))
    join.tick(50_000.0, is_pause=True)
    join.feedback(second, message(second))
    join.tick(61_000.0, is_pause=True)
    join.impression(request(1), message(request(1)))
    join.tick(200_000.0, is_pause=True)
    out = join.drain()
    assert (out.examples[0].labels["like"], out.dead_letters) == (1.0, [])


def test_feedback_for_a_closed_impression_is_a_dead_letter():
    join = Join(TASKS, DEDUP_SECONDS)
    feed(join, request(1), RATING_MS + 1)
    feed(join, feedback(1, "rating", 3, 1))
    joined = join.drain()
    assert [e.labels["rating"] for e in joined.examples] == [None]
    assert [d.code for d in joined.dead_letters] == ["late"]


def test_a_late_impression_becomes_one_example_at_once_with_the_feedback_that_waited():
    join = Join(TASKS, DEDUP_SECONDS)
    feed(join, feedback(1, "rating", 3, 50_000), 100_000)
    feed(join, request(1), 100_001)
    assert [e.labels for e in join.drain().examples] == [{"like": 0.0, "rating": 3.0}]


def test_an_impression_that_cannot_be_told_from_a_duplicate_is_a_dead_letter():
    join = Join(TASKS, DEDUP_SECONDS)
    join.advance(RATING_MS + 1_000_000)
    feed(join, request(1))
    join.advance(RATING_MS + 1_000_001)
    feed(join, request(2))
    joined = join.drain()
    assert [e.impression_id for e in joined.examples] == ["i1"]
    assert [d.code for d in joined.dead_letters] == ["too_late"]


def test_ids_are_forgotten_after_the_dedup_horizon_so_memory_stays_bounded():
    join, state = Join(TASKS, DEDUP_SECONDS), {}
    for number in range(3_000):
        feed(join, request(number, at=number * 1_000), number * 1_000)
        join.drain()
        save(state, join.changes())
    assert sum(join.knows(f"i{number}") for number in range(3_000)) == 61 + 1_000
    assert len(state) < 61 + 1_000 / 100 + 2


@st.composite
def arrivals(draw):
    """Events with jitter below the lateness that the windows allow, duplicates included, in order of arrival."""
    numbers = draw(st.lists(st.integers(0, 15), min_size=1, max_size=16, unique=True))
    events = []
    for number in numbers:
        at = 100_000 + number * draw(st.integers(0, 9_000))
        events += [request(number, at)] * draw(st.integers(1, 2))
        for _ in range(draw(st.integers(0, 3))):
            after = draw(st.integers(0, LIKE_MS))
            event = feedback(number, *draw(st.sampled_from([("like", 0), ("like", 1), ("rating", 4)])), at + after)
            events += [event] * draw(st.integers(1, 2))
    return events


def joined_in_order(events, jitters, cuts=()):
    """Examples by id, requests and number of dead letters; restarts from the saved state at `cuts`."""
    order = sorted(zip(events, jitters, strict=False), key=lambda e: e[0].event_time_ms + e[1])
    join, state, newest = Join(TASKS, DEDUP_SECONDS), {}, -1
    examples, requests, letters = [], [], 0

    def drain():
        nonlocal letters
        out = join.drain()
        examples.extend(out.examples)
        requests.extend(r.impression_id for r in out.requests)
        letters += len(out.dead_letters)

    for at, (event, _) in enumerate(order):
        newest = max(newest, event.event_time_ms)
        feed(join, event, newest)
        drain()
        if at in cuts:
            save(state, join.changes())
            kept = [key for key in state if not key.startswith("remembered:")]  # these may hold forgotten ids too
            assert {key: join.entry(key) for key in kept} == {key: state[key] for key in kept}
            join = Join(TASKS, DEDUP_SECONDS)
            join.restore(state, newest)
    join.advance(10**9)
    drain()
    return examples, requests, letters


@FEW
@given(arrivals(), st.data())
def test_any_order_within_the_lateness_gives_the_same_examples_each_once(events, data):
    jitters = data.draw(st.lists(st.integers(0, LATENESS_MS), min_size=len(events), max_size=len(events)))
    expected, _, _ = joined_in_order(events, [0] * len(events))
    examples, requests, letters = joined_in_order(events, jitters)
    ids = {e.impression_id for e in events if isinstance(e, TeacherRequest)}
    assert Counter(e.impression_id for e in examples) == Counter(list(ids)) == Counter(requests)
    assert {e.impression_id: e for e in examples} == {e.impression_id: e for e in expected}
    assert letters == 0


@FEW
@given(arrivals(), st.data())
def test_a_restart_from_the_saved_state_at_any_moment_changes_nothing(events, data):
    size = len(events)
    jitters = data.draw(st.lists(st.integers(0, 3 * RATING_MS), min_size=size, max_size=size))
    cuts = data.draw(st.sets(st.integers(0, size - 1)))
    assert joined_in_order(events, jitters, cuts) == joined_in_order(events, jitters)


@FEW
@given(arrivals())
def test_examples_leave_in_the_order_of_close_time_and_id(events):
    examples, _, _ = joined_in_order(events, [0] * len(events))
    keys = [(e.event_time_ms, e.impression_id) for e in examples]
    assert keys == sorted(keys)


def test_feedback_that_waits_for_a_task_that_was_removed_since_is_a_dead_letter():
    before = Join(TASKS, DEDUP_SECONDS)
    orphan = feedback(1, "rating", 4, 5)
    before.feedback(orphan, message(orphan))
    join = Join(TASKS[:1], DEDUP_SECONDS)
    join.restore(save({}, before.changes()), None)
    feed(join, request(1), watermark_ms=10**9)
    joined = join.drain()
    assert [letter.code for letter in joined.dead_letters] == ["removed_task"]
    assert [example.labels for example in joined.examples] == [{"like": 0.0}]


def test_the_feedback_that_waits_for_one_impression_is_bounded_in_bytes():
    join = Join(TASKS, DEDUP_SECONDS)
    one = feedback(1, "like", 1, 5)
    large = message(one)._replace(value=bytes(MAX_WAITING_BYTES // 3))
    for offset in range(5):
        join.feedback(one, large._replace(offset=offset))
    letters = join.drain().dead_letters
    assert [(letter.code, letter.message.offset) for letter in letters] == [("no_impression", n) for n in (2, 3, 4)]


def test_the_trace_that_an_earlier_version_saved_with_an_impression_is_passed_over_and_deleted():
    join = Join(TASKS, DEDUP_SECONDS)
    join.impression(request(1), message(request(1)))
    restored = Join(TASKS, DEDUP_SECONDS)
    restored.restore({"trace:i1": b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01", **dict(join.changes())}, None)
    restored.advance(10**9)
    assert [example.impression_id for example in restored.drain().examples] == ["i1"]
    assert restored.entry("trace:i1") is None  # so the log's cleaner, which writes it anew at last, deletes it
