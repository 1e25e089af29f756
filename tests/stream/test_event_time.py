"""Event time belongs to the events: no pause, restart, speed or single event changes an example or its labels."""

import json
from collections import defaultdict
from typing import Any, NamedTuple
from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st

from stream.join import join
from stream.join.partition import Partition
from stream.join.step import Arrival, StreamStep
from stream.messages import Message
from tests.stream.pair import SPEC, TASKS, save, stream_config
from tests.stream.pair import feedback as feedback_event
from tests.stream.pair import impression as impression_event
from tests.stream.test_step import INPUTS, TOPICS, aggregates, columns

MANY = settings(deadline=None, max_examples=150)  # the machine may be busy
START_MS = 1_700_000_000_000
WINDOW_MS = {task.name: round(task.window_seconds * 1000) for task in TASKS}
CONFIG = stream_config("")
PATIENCE_MS = max(WINDOW_MS.values()) + CONFIG.idle_seconds * 1000
FOREVER_MS = 10.0**12


class Sent(NamedTuple):
    """An event, and when the broker had it by a clock that no one sees."""

    topic: str
    message: Message
    event: dict[str, Any]
    arrival_ms: float


@st.composite
def histories(draw: Any, longest_pause_ms: float) -> list[Sent]:
    """Impressions with feedback, in the order of event time, sent with pauses; one topic may lag behind the other."""
    events: list[dict[str, Any]] = []
    at = START_MS
    for number in range(draw(st.integers(1, 12))):
        at += draw(st.integers(0, 40_000))
        events.append(impression_event(number, at))
        for task in draw(st.lists(st.sampled_from(sorted(WINDOW_MS)), max_size=3)):
            after_ms = draw(st.integers(0, WINDOW_MS[task] + 5_000))
            events.append(feedback_event(number, task, draw(st.integers(0, 1)), at + after_ms))
    events.sort(key=lambda event: event["event_time_ms"])
    sent, now, offsets = [], 0.0, dict.fromkeys(INPUTS, 0)
    lag_ms = {topic: draw(st.sampled_from([0.0, 5_000.0])) for topic in INPUTS}
    for event in events:
        now += draw(st.sampled_from([0.0, 1.0, 50.0, longest_pause_ms]))
        topic = INPUTS["task" in event]
        message = Message(topic, 0, offsets[topic], b"k", json.dumps(event).encode())
        offsets[topic] += 1
        sent.append(Sent(topic, message, event, now + lag_ms[topic]))
    return sent


def labels_of(history: list[Sent]) -> dict[str, dict[str, float | None]]:
    """The reference: of each impression, the last feedback by event time within each task's window."""
    labels: dict[str, dict[str, float | None]] = {}
    at: dict[str, int] = {}
    for sent in history:
        if "task" not in sent.event:
            labels[sent.event["impression_id"]] = {"like": 0.0, "rating": None}
            at[sent.event["impression_id"]] = sent.event["event_time_ms"]
    newest: dict[tuple[str, str], tuple[int, float]] = defaultdict(lambda: (-1, 0.0))
    for _, _, event, _ in history:
        if "task" in event:
            impression_id, task = event["impression_id"], event["task"]
            value = event["event_time_ms"], float(event["value"])
            is_within = 0 <= event["event_time_ms"] - at[impression_id] <= WINDOW_MS[task]
            if is_within and value > newest[impression_id, task]:
                newest[impression_id, task] = value
                labels[impression_id][task] = value[1]
    return labels


def truly_late(history: list[Sent]) -> set[str]:
    """The impressions of which some feedback came only after their whole window had passed on the broker."""
    arrived = {sent.event["impression_id"]: sent.arrival_ms for sent in history if "task" not in sent.event}
    waited = [(sent, sent.arrival_ms - arrived[sent.event["impression_id"]]) for sent in history]
    return {sent.event["impression_id"] for sent, waited_ms in waited if waited_ms >= PATIENCE_MS}


class Run:
    """A stream process that polls when it likes, and is restarted from its saved state when it does not."""

    def __init__(self, history: list[Sent]) -> None:
        self.history = history
        self.labels: dict[str, dict[str, float | None]] = {}
        self.reasons: list[str] = []
        self.step = StreamStep(SPEC, TASKS, columns)
        self.partition = Partition(0, TOPICS, CONFIG, TASKS, aggregates)
        self.saved: dict[str, bytes] = {}
        self.read = dict.fromkeys(INPUTS, 0)

    def poll(self, now_ms: float, most: int, wall_ms: int = 2**53) -> None:
        """Take up to `most` messages of each input of what is there at `now_ms`."""
        arrived: list[Message] = []
        caught_up = set()
        for topic in INPUTS:
            there = [s.message for s in self.history if s.topic == topic and s.arrival_ms <= now_ms]
            new = there[self.read[topic] :][:most]
            self.read[topic] += len(new)
            arrived += new
            if self.read[topic] == len(there):
                caught_up.add((topic, 0))
        arrival, more = Arrival(arrived, caught_up, now_ms, wall_ms), True
        while more:
            (effects,) = self.step.take({0: self.partition}, arrival, limit=3)
            for example in effects.examples:
                assert example.impression_id not in self.labels, "twice"
                self.labels[example.impression_id] = example.labels
            self.reasons += [letter.code for letter in effects.dead_letters]
            arrival, more = arrival._replace(messages=[]), effects.has_more

    def restart(self, now_ms: float) -> None:
        """What a kill leaves: the saved state, and the messages after its positions."""
        save(self.saved, self.partition.changes())
        self.partition = Partition(0, TOPICS, CONFIG, TASKS, aggregates)
        self.partition.restore(self.saved, now_ms)
        self.read = {topic: self.partition.positions.get(topic, 0) for topic in INPUTS}

    def end(self) -> None:
        """Nothing more comes, for long."""
        self.poll(FOREVER_MS, 10**6)
        self.poll(2 * FOREVER_MS, 10**6)


@st.composite
def runs(draw: Any, history: list[Sent]) -> Run:
    """Any schedule of polls and restarts between the first arrival and long after the last."""
    run, now = Run(history), 0.0
    last = max(sent.arrival_ms for sent in history)
    for _ in range(draw(st.integers(0, 25))):
        now = min(now + draw(st.sampled_from([0.0, 10.0, 200.0, PATIENCE_MS, last / 3])), last)
        if draw(st.integers(0, 4)) == 0:
            run.restart(now)
        else:
            run.poll(now, draw(st.integers(1, 6)))
    run.end()
    return run


@MANY
@given(st.data())
def test_any_schedule_of_pauses_restarts_and_speeds_gives_the_labels_of_one_undisturbed_run(data):
    history = data.draw(histories(longest_pause_ms=PATIENCE_MS / 40))
    with mock.patch.object(join, "MOST_ENDED", data.draw(st.sampled_from([1, 3, 1_000]))):
        run = data.draw(runs(history))
    assert run.labels == labels_of(history)


@MANY
@given(st.data())
def test_of_a_long_pause_only_feedback_that_came_after_its_whole_window_can_be_missing(data):
    history = data.draw(histories(longest_pause_ms=120_000.0))
    run = data.draw(runs(history))
    whole, late = labels_of(history), truly_late(history)
    assert run.labels.keys() == whole.keys()
    assert {i: labels for i, labels in run.labels.items() if i not in late} == {
        i: labels for i, labels in whole.items() if i not in late
    }


@MANY
@given(st.data(), st.sampled_from(INPUTS), st.integers(0, 2**52))
def test_no_single_event_changes_the_label_of_another(data, topic, odd_ms):
    """Whatever its time: in the year 2100, an hour ahead, in 1970."""
    history = data.draw(histories(longest_pause_ms=10.0))
    at = data.draw(st.integers(0, len(history) - 1))
    event = impression_event(99, odd_ms) if topic == INPUTS[0] else feedback_event(99, "like", 1, odd_ms)
    before_ms = max([sent.arrival_ms for sent in history[:at] if sent.topic == topic], default=0.0)
    odd = Sent(topic, Message(topic, 0, 0, b"k", json.dumps(event).encode()), event, before_ms)
    with_odd, offsets = [], dict.fromkeys(INPUTS, 0)
    for sent in [*history[:at], odd, *history[at:]]:
        with_odd.append(sent._replace(message=sent.message._replace(offset=offsets[sent.topic])))
        offsets[sent.topic] += 1
    run, now = Run(with_odd), 0.0
    while now < max(sent.arrival_ms for sent in history) + 100:
        run.poll(now, 10**6, wall_ms=START_MS + 10**6)
        now += 25.0
    run.end()
    run.labels.pop("i99", None)
    assert run.labels == labels_of(history)


def history_of(*events: dict[str, Any], arrivals: list[float] | None = None) -> list[Sent]:
    """These events, all there at once, or at `arrivals`."""
    times = arrivals or [0.0] * len(events)
    return [
        Sent(topic, Message(topic, 0, number, b"k", json.dumps(event).encode()), event, at)
        for number, (event, at) in enumerate(zip(events, times, strict=True))
        for topic in [INPUTS["task" in event]]
    ]


def test_an_event_ahead_of_the_clocks_is_a_dead_letter_and_one_within_the_bound_keeps_its_window():
    wall_ms = START_MS
    near, far = impression_event(1, wall_ms + 300_000), impression_event(2, wall_ms + 300_001)
    near_click = feedback_event(1, "like", 1, wall_ms + 299_000 + 11_000)
    other, click = impression_event(3, wall_ms), feedback_event(3, "like", 1, wall_ms + 15_000)
    run = Run(history_of(near, far, near_click, other, click))
    run.poll(0.0, 100, wall_ms + 10_000)
    run.end()
    assert run.reasons == []
    run = Run(history_of(near, far, other, click, near_click))
    run.poll(0.0, 100, wall_ms)
    run.end()
    assert run.reasons == ["ahead", "ahead"]
    assert run.labels == {"i1": {"like": 0.0, "rating": None}, "i3": {"like": 1.0, "rating": None}}


def test_a_broker_whose_clock_is_behind_ours_bounds_an_event_too():
    history = history_of(impression_event(1, START_MS + 400_000))
    for appended_ms, reasons in ((START_MS, ["ahead"]), (START_MS + 200_000, [])):
        run = Run([s._replace(message=s.message._replace(appended_ms=appended_ms)) for s in history])
        run.end()
        assert run.reasons == reasons


def test_a_pause_closes_what_has_waited_its_window_and_leaves_event_time_alone():
    first, click = impression_event(1, START_MS), feedback_event(1, "like", 1, START_MS + 10)
    after, later_click = impression_event(2, START_MS + 100), feedback_event(2, "rating", 1, START_MS + 60_000)
    history = history_of(first, click, after, later_click, arrivals=[0.0, 0.0, 10**6, 10**6 + 50_000.0])
    run = Run(history)
    run.poll(0.0, 10)
    run.poll(PATIENCE_MS - 1, 10)
    assert run.labels == {}
    run.poll(PATIENCE_MS, 10)
    assert run.labels == {"i1": {"like": 1.0, "rating": None}}
    run.poll(10.0**6, 10)
    run.poll(10.0**6 + 50_000, 10)
    assert run.labels.keys() == {"i1"}
    run.end()
    assert run.labels["i2"] == {"like": 0.0, "rating": 1.0}
    assert run.reasons == []
