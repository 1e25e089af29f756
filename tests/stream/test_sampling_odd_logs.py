"""Sampling on odd logs: which rows are kept or drawn follows from ids alone, not from kills, polls or repetitions."""

import json
from typing import Any, NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from stream.events import Example, TeacherRequest
from stream.join.sampling import KnownItems, SamplingConfig, is_drawn
from stream.join.step import Arrival, StreamStep
from stream.messages import Message
from tests.drawn_rows import Shown, alone_of, drawn_faults
from tests.stream.pair import SPEC, TASKS, save
from tests.stream.test_step import END_MS, WALL_MS, caught_up, columns, messages_of, partition

KNOWN = 6
"""Impressions whose items are drawn from: so few that some leave again."""

JITTERS_MS = (0, 0, 0, -30_000, 40_000)
ANSWERS = (("like", 1, 0), ("like", 1, 5_000), ("like", 0, 1), ("like", 1, 25_000), ("like", 0.5, 1), ("rating", 4, 9))
"""Of an impression: task, value, and how long after it in ms; the window of `like` is 20 s."""

Line = tuple[str, str, bytes]

ODD_TEXTS = st.one_of(
    st.text(st.characters(codec="utf-8"), min_size=1, max_size=8),
    st.sampled_from([" ", '"', "\\", "\0", "a\nb", "0", "null", "🦉", "é", "e\u0301", "x" * 256, "x" * 257, ""]),
)
SAMPLINGS = st.builds(
    SamplingConfig,
    one_negative_of=st.integers(1, 3),
    drawn_negatives=st.integers(0, 3),
    drawn_by_popularity=st.sampled_from([0.0, 0.5, 1.0]),
)


class Made(NamedTuple):
    """What a stream made of a log."""

    examples: list[Example]
    requests: list[TeacherRequest]
    left_out: int


@st.composite
def logs(draw: st.DrawFn) -> list[Line]:
    """Impressions of few ids with what came of them: out of order, twice, late, of no task's values, or no events."""
    names, items = (draw(st.lists(ODD_TEXTS, min_size=1, max_size=size, unique=True)) for size in (30, 6))
    lines: list[Line] = []
    for number in range(draw(st.integers(1, 40))):
        name, at_ms = draw(st.sampled_from(names)), 1_000_000 + 2_000 * number + draw(st.sampled_from(JITTERS_MS))
        user, item, hour = draw(st.sampled_from([0, -1, 2**62])), draw(st.sampled_from(items)), draw(st.integers(0, 1))
        event = {"user_id": user, "item_id": item, "context": {"hour": hour}}
        lines.append(line("impression", name, at_ms, event))
        for task, value, after_ms in draw(st.lists(st.sampled_from(ANSWERS), max_size=2)):
            lines.append(line("feedback", name, at_ms + after_ms, {"task": task, "value": value}))
        if draw(st.integers(0, 9)) == 0:
            lines.append(("impression", name, draw(st.binary(max_size=5))))
    return lines


def line(kind: str, name: str, at_ms: int, event: dict[str, Any]) -> Line:
    return kind, name, json.dumps({"impression_id": name, "event_time_ms": at_ms, **event}).encode()


def made_of(lines: list[Line], sampling: SamplingConfig | None, *, limit: int = 10_000, kill_at: int = 0) -> Made:
    """What a stream makes of a log that is killed at a message, and comes back with what it had saved."""
    step, made, one, saved = StreamStep(SPEC, TASKS, columns, sampling), Made([], [], 0), new_partition(), {}
    messages = messages_of(lines)
    if kill_at:
        made = taken(step, one, Arrival(messages[:kill_at], (), 0.0, WALL_MS), limit, made)
        save(saved, one.changes())
        one = new_partition()
        one.restore(saved, 0.0)
    left = [message for message in messages if is_left(message, one.positions)]
    made = taken(step, one, Arrival(left, (), 0.0, WALL_MS), limit, made)
    for now_ms in (0.0, END_MS):
        made = taken(step, one, Arrival([], caught_up(0), now_ms, WALL_MS), limit, made)
    return made


def new_partition() -> Any:
    made = partition()
    made.known = KnownItems(KNOWN)
    return made


def is_left(message: Message, positions: dict[str, int]) -> bool:
    return message.offset >= positions.get(message.topic, 0)


def taken(step: StreamStep, one: Any, arrival: Arrival, limit: int, made: Made) -> Made:
    more = True
    while more:
        (effects,) = step.take({0: one}, arrival, limit)
        made = Made(
            made.examples + effects.examples, made.requests + effects.requests, made.left_out + effects.left_out
        )
        arrival, more = arrival._replace(messages=[]), effects.has_more
    return made


def joined_in(made: Made) -> list[Shown]:
    return [Shown(request.impression_id, request.item_id) for request in made.requests]


def as_json(made: Made) -> list[list[str]]:
    return [[one.model_dump_json() for one in rows] for rows in (made.examples, made.requests)]


@settings(deadline=None, max_examples=60)
@given(logs(), SAMPLINGS, st.integers(0, 40), st.integers(1, 10))
def test_a_kill_at_any_message_and_the_size_of_steps_change_no_row(
    lines: list[Line], sampling: SamplingConfig, kill_at: int, limit: int
) -> None:
    whole = made_of(lines, sampling)
    killed = made_of(lines, sampling, limit=limit, kill_at=min(kill_at, len(lines)))
    assert as_json(killed)[0] == as_json(whole)[0]
    assert sorted(as_json(killed)[1]) == sorted(as_json(whole)[1])
    assert killed.left_out == whole.left_out


@settings(deadline=None, max_examples=60)
@given(logs(), SAMPLINGS)
def test_an_impression_that_is_sent_twice_changes_no_row(lines: list[Line], sampling: SamplingConfig) -> None:
    """As a producer does that did not hear of its first sending."""
    twice = [line for line in lines for _ in range(2 if line[0] == "impression" else 1)]
    assert as_json(made_of(twice, sampling)) == as_json(made_of(lines, sampling))


@settings(deadline=None, max_examples=60)
@given(logs(), SAMPLINGS)
def test_what_is_kept_follows_from_the_ids_and_labels_alone(lines: list[Line], sampling: SamplingConfig) -> None:
    whole, made = made_of(lines, None), made_of(lines, sampling)
    one_of, shown = sampling.one_negative_of, [one for one in made.examples if one.sampled is None]
    alone = alone_of(sampling, KNOWN, [joined_in(whole)])
    compared = [one for one in whole.examples if one.impression_id not in alone]
    kept = [one for one in compared if one.labels["like"] or is_drawn(one.impression_id, one_of)]
    assert [one.impression_id for one in shown] == [one.impression_id for one in kept]
    assert [one.weight for one in shown] == [1 if one.labels["like"] else one_of for one in kept]
    assert made.left_out == len(whole.examples) - len(kept)


@settings(deadline=None, max_examples=60)
@given(logs(), SAMPLINGS)
def test_what_is_drawn_is_what_a_reference_without_steps_and_state_draws(
    lines: list[Line], sampling: SamplingConfig
) -> None:
    whole, made = made_of(lines, None), made_of(lines, sampling)
    joined = joined_in(whole)
    alone = alone_of(sampling, KNOWN, [joined])
    examples = {
        one.impression_id: json.loads(one.model_dump_json()) for one in whole.examples if one.impression_id not in alone
    }
    drawn = [json.loads(one.model_dump_json()) for one in made.examples if one.sampled]
    requested = {request.impression_id for request in made.requests}
    assert list(drawn_faults(sampling, KNOWN, [joined], examples, drawn, requested)) == []
