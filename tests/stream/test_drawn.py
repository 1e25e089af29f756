"""Drawn negatives: the same rows whatever happens, of items known by then, beside positives alone."""

import json
from collections import Counter
from math import exp, log

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.events import Example
from stream.join.sampling import KnownItems, SamplingConfig, drawn_id
from stream.join.step import Arrival, StreamStep
from stream.log import example_file
from stream.log.examples import ExampleRecord
from tests.stream.pair import SPEC, TASKS, Scenario, feedback, impression, save
from tests.stream.test_sampling import taken_by
from tests.stream.test_step import END_MS, WALL_MS, caught_up, columns, messages_of, partition, steps

SCENARIO = Scenario(200)
TWO = SamplingConfig(drawn_negatives=2)


def joined(sampling=None, lines=SCENARIO.lines, made=None):
    step, arrival = StreamStep(SPEC, TASKS, columns, sampling), Arrival(messages_of(lines), (), 0.0, WALL_MS)
    return steps(step, {0: made or partition()}, [arrival], 10_000)[0]


def shown_and_drawn(effects):
    shown = [e for e in effects.examples if e.sampled is None]
    return shown, [e for e in effects.examples if e.sampled]


def test_beside_each_positive_stand_rows_of_its_user_with_other_items_that_were_shown_before():
    _, drawn = shown_and_drawn(joined(TWO))
    shown = joined().examples
    order = {e.impression_id: n for n, e in enumerate(sorted(shown, key=lambda e: e.event_time_ms))}
    by_id = {e.impression_id: e for e in shown}
    rows = {}
    for one in drawn:
        rows.setdefault(one.sampled.of, []).append(one)
    for name, shown_one in by_id.items():
        known = {e.item_id for e in shown if order[e.impression_id] < order[name]}
        others = known - {shown_one.item_id}
        found = rows.pop(name, [])
        assert len(found) == (min(2, len(others)) if shown_one.labels["like"] and shown_one.item_id in known else 0)
        assert len({one.item_id for one in found}) == len(found)
        for number, one in enumerate(found, 1):
            assert one.item_id in others
            assert one.impression_id == drawn_id(name, number)
            assert (one.user_id, one.event_time_ms, one.context) == (
                shown_one.user_id,
                shown_one.event_time_ms,
                shown_one.context,
            )
            assert one.features == [one.user_id, one.item_id, one.context["hour"]]
            assert one.labels == {"like": 0.0, "rating": None}
    assert not rows
    assert len(drawn) > 100


def test_an_impression_whose_item_no_drawn_row_could_have_had_is_left_out():
    """It would be a yes, and nothing like it a no: a learner would learn that each new item is a yes."""
    whole, sampled = joined(), joined(TWO)
    first = {}
    for one in sorted(whole.examples, key=lambda e: e.event_time_ms):
        first.setdefault(one.item_id, one.impression_id)
    shown, drawn = shown_and_drawn(sampled)
    assert {e.impression_id for e in whole.examples} - {e.impression_id for e in shown} == set(first.values())
    assert sampled.left_out == len(first) == 5
    assert {one.sampled.of for one in drawn}.isdisjoint(first.values())


def test_an_impression_stands_at_any_place_among_its_drawn_rows():
    """Were it always the first, a learner that goes row by row would learn that after a yes comes a no."""
    examples, places = joined(TWO).examples, Counter()
    for n, one in enumerate(examples):
        if one.sampled is None and one.labels["like"]:
            of = [(e.sampled.of if e.sampled else e.impression_id) == one.impression_id for e in examples]
            first, last = of.index(True), len(of) - 1 - of[::-1].index(True)
            assert sum(of) == last - first + 1, "they follow each other"
            places[n - first, sum(of)] += 1
    found = [places[place, 3] for place in range(3)]
    assert sum(found) > 50
    assert min(found) > 0.2 * sum(found)


def test_all_else_is_as_without_and_the_teacher_is_asked_for_every_drawn_row():
    whole, sampled = joined(), joined(TWO)
    shown, drawn = shown_and_drawn(sampled)
    alone = len(whole.examples) - len(shown)
    assert shown == [e for e in whole.examples if e in shown]
    assert sampled.updates == whole.updates  # running aggregates mean what happened
    assert sampled._replace(examples=[], requests=[]) == whole._replace(examples=[], requests=[], left_out=alone)
    asked = {r.impression_id: r for r in sampled.requests}
    assert len(asked) == len(sampled.requests)
    assert [r for r in sampled.requests if not r.impression_id.startswith("drawn-")] == whole.requests
    for one in drawn:
        request = asked[one.impression_id]
        assert (request.item_id, request.features) == (one.item_id, one.features)


@settings(deadline=None, max_examples=15)
@given(st.integers(1, 400), st.integers(1, 40), st.sampled_from([0.0, 0.5, 1.0]))
def test_a_restart_at_any_message_and_the_size_of_steps_change_nothing(at, limit, power):
    """The state that the first process saves is all that the second one has; it knows the last 50 impressions."""
    sampling = SamplingConfig(drawn_negatives=2, drawn_by_popularity=power)
    messages, step = messages_of(SCENARIO.lines), StreamStep(SPEC, TASKS, columns, sampling)
    first, second, whole, saved = partition(), partition(), partition(), {}
    for one in (first, second, whole):
        one.known = KnownItems(50)
    found = taken_by(step, first, Arrival(messages[:at], (), 0.0, WALL_MS), limit)
    save(saved, first.changes())
    second.restore(saved, 0.0)
    left = [m for m in messages if m.offset >= second.positions.get(m.topic, 0)]
    found += taken_by(step, second, Arrival(left, (), 0.0, WALL_MS), limit)
    for now_ms in (0.0, END_MS):
        found += taken_by(step, second, Arrival([], caught_up(0), now_ms, WALL_MS), limit)
    expected = joined(sampling, made=whole).examples
    assert [example.model_dump_json() for example in found] == [e.model_dump_json() for e in expected]


def test_a_duplicate_and_a_message_that_is_none_make_no_item_known():
    made, again = partition(), partition()
    joined(TWO, made=made)
    messages = [line for line in SCENARIO.lines if line[0] == "impression" and line[2][:1] == b"{"]
    joined(TWO, lines=list({key: line for line in messages for key in [line[1]]}.values()), made=again)
    assert len(made.known) == len(again.known) == 200
    assert made.known.changes() == again.known.changes()


def test_a_row_that_closes_in_the_step_in_which_it_is_drawn_has_its_features():
    events = [impression(n, 1_000 + n) for n in range(6)]  # the last one's item is that of the first
    events += [feedback(5, "like", 1, 1_005), impression(99, 10**7)]
    lines = [("feedback" if "task" in e else "impression", e["impression_id"], json.dumps(e).encode()) for e in events]
    feedback_at = 10**7 + 1
    lines.append(("feedback", "i99", json.dumps(feedback(99, "like", 0, feedback_at)).encode()))
    step, made = StreamStep(SPEC, TASKS, columns, TWO), partition()
    (effects,) = step.take({0: made}, Arrival(messages_of(lines), caught_up(0), 0.0, WALL_MS), 100)
    _, drawn = shown_and_drawn(effects)
    assert [one.sampled.of for one in drawn] == ["i5", "i5"]
    assert all(one.features == [5, one.item_id, 5] for one in drawn)


def filled(counts):
    known = KnownItems()
    for item, times in counts.items():
        for _ in range(times):
            known.add(json.dumps(item))
    return known


def numbers(name):
    from stream.join.sampling import _numbers  # noqa: PLC0415 - the numbers themselves are what is tested

    return _numbers(name)


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_items_are_drawn_by_their_impressions_to_the_power(power):
    counts = {1: 1, 2: 4, 3: 16, 4: 79}
    known = filled(counts)
    found = Counter(json.loads(known.drawn("9", 1, power, numbers(f"i{n}"))[0]) for n in range(8_000))
    whole = sum(times**power for times in counts.values())
    for item, times in counts.items():
        assert found[item] == pytest.approx(8_000 * times**power / whole, rel=0.15, abs=20)


def test_the_correction_makes_learnt_odds_those_of_one_item_among_all_known():
    """Beside a positive stand two drawn rows: a model that knows nothing learns odds of 1 to 2."""
    _, drawn = shown_and_drawn(joined(TWO))
    late = [one for one in drawn if one.event_time_ms > 1_050_000]  # by then all five items are known
    learnt = log(1 / 2)  # one positive beside two negatives
    odds = {round(exp(learnt + one.sampled.log_odds), 9) for one in late}
    assert odds == {1 / 4}  # of an item among the five that are known: 1 of 5
    _, by_popularity = shown_and_drawn(joined(SamplingConfig(drawn_negatives=2, drawn_by_popularity=0.75)))
    assert {(one.sampled.recipe, one.sampled.log_odds) for one in by_popularity} == {("popularity^0.75", None)}


def test_what_is_known_is_bounded_and_so_is_what_is_saved():
    known, saved = KnownItems(300), {}
    for n in range(5_000):
        known.add(json.dumps(n % 900))
        save(saved, known.changes())
    assert len(known) == 300
    assert len(saved) <= 4
    restored = KnownItems(300)
    restored.restore(saved)
    assert known.others("") == restored.others("") == 300
    last = {json.dumps(n % 900) for n in range(4_700, 5_000)}
    assert {json.dumps(n) for n in range(900) if json.dumps(n) in restored} == last


def test_what_an_earlier_release_saved_by_a_feature_is_known_together():
    known = KnownItems()
    known.restore({"known:0": b'[["","1"],["context:hour=5","2"],"3"]'})
    assert [item in known for item in ("1", "2", "3", "4")] == [True, True, True, False]


def test_items_that_came_and_went_are_drawn_by_what_is_left_of_them():
    known = KnownItems(2)
    for item in ("1", "2", "1"):
        known.add(item)
    assert known.drawn("2", 5, 1.0, numbers("i")) == ["1"]
    known.add("1")
    assert known.drawn("1", 5, 0.0, numbers("i")) == []


def test_without_it_every_byte_is_as_it_was_and_with_it_it_comes_back(tmp_path):
    fields = ["impression_id", "user_id", "item_id", "event_time_ms", "context", "spec_id", "features", "labels"]
    shown, drawn = shown_and_drawn(joined(TWO))
    assert {tuple(json.loads(e.model_dump_json())) for e in shown} == {tuple(fields)}
    assert tuple(json.loads(drawn[0].model_dump_json())) == (*fields, "sampled")
    assert Example.model_validate_json(drawn[0].model_dump_json()) == drawn[0]
    records = [ExampleRecord(0, n, example) for n, example in enumerate([*shown[:3], *drawn[:3]])]
    file = example_file.write(tmp_path, 0, records)
    assert [record for batch in example_file.read(file, 0) for record in batch] == records
