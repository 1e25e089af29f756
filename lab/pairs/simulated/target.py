"""The simulated target: a young music app, whose impressions are the stream.

Four tracks are shown at once. Half of the tracks are there from the start, the others come out one after the other.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lab.pairs.project_folder import EventLine, feedback_line, impression_line
from lab.pairs.simulated.world import DEVICES, Floats, Ints, People, Works, World, chance

_SLATE = 4
_START_MS = 1_767_225_600_000  # 2026-01-01T00:00:00Z
_MS_BETWEEN_SLATES = 20_000
_CLICK_OFFSET = -0.9
_CLICK_AFTER_MS = (300, 2_000)  # the dwell ends within 2 s + 5 s: inside the tasks' window of 10 s


class Impressions(NamedTuple):
    """The stream as arrays of length N, and the truth behind it: the probability of each click."""

    time_ms: Ints
    user: Ints
    track: Ints
    device: Ints
    click: NDArray[np.bool_]
    click_after_ms: Ints
    dwell_seconds: Floats
    click_chance: Floats


def simulate_target(world: World, works: Works, listeners: People, tracks: Ints, events: int) -> Impressions:
    """`events` impressions of the works `tracks` (their row numbers)."""
    random = world.random
    slates = -(-events // _SLATE)
    slate = np.arange(events) // _SLATE
    user = random.integers(len(listeners.age), size=slates)[slate]
    device = random.integers(len(DEVICES), size=slates)[slate]
    time_ms = _START_MS + np.cumsum(random.exponential(_MS_BETWEEN_SLATES, slates)).astype(np.int64)[slate]
    track = (random.random(events) * _released(len(tracks), events)).astype(np.int64)
    work = tracks[track]
    affinity = world.affinity(listeners.taste_UK[user], works.character_IK[work], works.target_quality[work], device)
    return Impressions(
        time_ms,
        user,
        track,
        device,
        world.acts(affinity + _CLICK_OFFSET),
        random.integers(*_CLICK_AFTER_MS, size=events),
        world.seconds(affinity),
        chance(affinity + _CLICK_OFFSET),
    )


def listener_id(user: int) -> str:
    """The target's id of a listener: a string."""
    return f"listener-{user:04d}"


def track_id(track: int) -> int:
    """The target's id of a track: an integer."""
    return 10_000 + track


def event_lines(impressions: Impressions) -> Iterator[EventLine]:
    """The stream's lines: each impression, then a click and its dwell, in seconds, if there was one."""
    for i, row in enumerate(zip(*(column.tolist() for column in impressions), strict=True)):
        time_ms, user, track, device, click, click_after_ms, dwell_seconds, _ = row
        name, answered_ms = f"s{i:06d}", time_ms + click_after_ms
        yield impression_line(name, listener_id(user), track_id(track), time_ms, {"device": DEVICES[device]})
        if click:
            seconds = round(dwell_seconds, 2)
            yield feedback_line(name, "click", 1, answered_ms)
            yield feedback_line(name, "dwell", seconds, answered_ms + int(seconds * 1000))


def _released(tracks: int, events: int) -> Floats:
    """How many tracks are out at each impression."""
    return np.floor(np.linspace((tracks + 1) // 2, tracks, events))
