"""The simulated pair: two related domains whose truth is known, written as a project folder without its teacher.

Taste has the same effect in both domains. A person's taste depends on country, age and chance, a work's character on
style and chance. A work's quality differs somewhat between the domains: `_KINSHIP` is their correlation. The source is
a video platform with many viewers, whose rows the teacher learns; the target a young music app, whose impressions are
the stream. There four tracks are shown at once; half of them are there from the start, the others come out one after
the other.

Shapes: N rows, U people, I works, K = 4 dimensions of taste.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from graft.fit.design import DesignInput, Source, TeacherDesign
from lab.pairs.project_folder import (
    TRUTH,
    EventLine,
    copy_template,
    count_before,
    feedback_line,
    impression_line,
    mean_before,
    new_folder,
    save_source,
    write_events,
    write_json,
    write_table,
)
from student.evaluate.metrics import exact_auc

COUNTRIES = ("brazil", "france", "india", "japan", "kenya")
STYLES = ("ambient", "folk", "jazz", "metal", "pop", "rap")
DEVICES = ("phone", "speaker", "car")
_MAX_SECONDS = 5.0  # a preview's length in both domains

_K = 4
_KINSHIP = 0.85
_DEVICE_EFFECTS = np.array([0.3, -0.3, 0.0])

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def _chance(logit_N: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-logit_N)))


class People(NamedTuple):
    """The people of one domain; `country` is a row number of COUNTRIES, `age` in years."""

    country: Ints
    age: Ints
    taste_UK: Floats


class Works(NamedTuple):
    """All works; `style` is a row number of STYLES, `tempo` in beats per minute, `sound_IK` a noisy character.

    The qualities add to the logit of an act, in the source and in the target.
    """

    style: Ints
    tempo: Floats
    sound_IK: Floats
    character_IK: Floats
    source_quality: Floats
    target_quality: Floats


class _World:
    """Draws people, works and acts. Same seed, same calls, same world."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self._country_taste = self.random.normal(0, 0.7, (len(COUNTRIES), _K))
        self._age_taste = self.random.normal(0, 0.5, _K)
        self._style_character = self.random.normal(0, 1.0, (len(STYLES), _K))

    def people(self, count: int) -> People:
        country = self.random.integers(len(COUNTRIES), size=count)
        age = self.random.integers(16, 70, size=count)
        own = self.random.normal(0, 0.4, (count, _K))
        taste = self._country_taste[country] + np.outer((age - 43) / 16, self._age_taste) + own
        return People(country, age, taste)

    def works(self, count: int) -> Works:
        style = self.random.integers(len(STYLES), size=count)
        character = self._style_character[style] + self.random.normal(0, 0.5, (count, _K))
        source = self.random.normal(0, 0.7, count)
        target = _KINSHIP * source + np.sqrt(1 - _KINSHIP**2) * self.random.normal(0, 0.7, count)
        tempo = np.round(self.random.normal(90 + 15 * style, 12).clip(40, 220), 1)
        sound = np.round(character + self.random.normal(0, 0.7, (count, _K)), 3)
        return Works(style, tempo, sound, character, source, target)

    def affinity(self, taste_NK: Floats, character_NK: Floats, quality_N: Floats, device_N: Ints) -> Floats:
        """The logit of an act before its task's own offset, [N]."""
        logit: Floats = (taste_NK * character_NK).sum(1) * 0.6 + quality_N + _DEVICE_EFFECTS[device_N]
        return logit

    def acts(self, logit_N: Floats) -> NDArray[np.bool_]:
        """Whether each row's person acts, drawn with the probability of its logit, [N]."""
        return self.random.random(len(logit_N)) < _chance(logit_N)

    def seconds(self, affinity_N: Floats) -> Floats:
        """How long each stays, in (0, _MAX_SECONDS)."""
        seconds: Floats = _MAX_SECONDS * _chance(affinity_N + self.random.normal(0, 0.7, len(affinity_N)))
        return seconds


AGE_GROUPS = (25, 35, 50)  # the first year of each group after the youngest
_PLAY_OFFSET, _FOLLOW_OFFSET = -0.3, -2.0
_NO_PLAYS_SHARE = 0.5


def _source(world: _World, works: Works, clips: Ints, rows: int, viewers: int) -> Source:
    """`rows` views of the works `clips` (their row numbers; the code of clips[i] is i + 1) by `viewers` people."""
    people = world.people(viewers)
    user, clip = world.random.integers(viewers, size=rows), world.random.integers(len(clips), size=rows)
    device = world.random.integers(len(DEVICES), size=rows)
    work = clips[clip]
    affinity = world.affinity(people.taste_UK[user], works.character_IK[work], works.source_quality[work], device)
    play = world.acts(affinity + _PLAY_OFFSET)
    tables: dict[str, Any] = {
        "rows.user": user,
        "rows.item": clip,
        "rows.viewer_views": count_before(user),
        "rows.viewer_play_share": mean_before(user, play, _NO_PLAYS_SHARE),
        "rows.surface_code": device + 1,
        "users.viewer_id": np.arange(1, viewers + 1),
        "users.country_code": people.country + 1,
        "users.age_group": np.digitize(people.age, AGE_GROUPS),
        "items.clip_code": np.arange(1, len(clips) + 1),
        "items.style_code": works.style[clips] + 1,
        "items.beats_per_second": (works.tempo[clips] / 60).astype(np.float32),
        "items.sound": works.sound_IK[clips].astype(np.float32),
        "labels.play": play.astype(np.float32),
        "labels.follow": world.acts(affinity + _FOLLOW_OFFSET).astype(np.float32),
        "labels.watch": np.where(play, world.seconds(affinity), np.nan).astype(np.float32),
    }
    return Source(_design(viewers, len(clips)), tables)


def _design(viewers: int, clips: int) -> TeacherDesign:
    return TeacherDesign(
        inputs=[
            DesignInput(name="viewer_id", table="users", codes=viewers + 1, history=True),
            DesignInput(name="viewer_views", table="rows", logarithm=True, history=True),
            DesignInput(name="viewer_play_share", table="rows", history=True, default=_NO_PLAYS_SHARE),
            DesignInput(name="clip_code", table="items", codes=clips + 1),
            DesignInput(name="style_code", table="items", codes=len(STYLES) + 1),
            DesignInput(name="beats_per_second", table="items"),
            DesignInput(name="sound", table="items", width=4),
            DesignInput(name="country_code", table="users", codes=len(COUNTRIES) + 1),
            DesignInput(name="age_group", table="users", codes=len(AGE_GROUPS) + 1),
            DesignInput(name="surface_code", table="rows", codes=len(DEVICES) + 1),
        ],
        heads={"play": "binary", "follow": "binary", "watch": "regression"},
        epochs=3,
        batch_rows=2048,
    )


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


def _impressions(world: _World, works: Works, listeners: People, tracks: Ints, events: int) -> Impressions:
    """`events` impressions of the works `tracks` (their row numbers)."""
    random = world.random
    slates = -(-events // _SLATE)
    slate = np.arange(events) // _SLATE
    user = random.integers(len(listeners.age), size=slates)[slate]
    device = random.integers(len(DEVICES), size=slates)[slate]
    time_ms = _START_MS + np.cumsum(random.exponential(_MS_BETWEEN_SLATES, slates)).astype(np.int64)[slate]
    released = np.floor(np.linspace((len(tracks) + 1) // 2, len(tracks), events))
    track = (random.random(events) * released).astype(np.int64)
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
        _chance(affinity + _CLICK_OFFSET),
    )


def _listener_id(user: int) -> str:
    return f"listener-{user:04d}"


def _track_id(track: int) -> int:
    return 10_000 + track


def _event_lines(impressions: Impressions) -> Iterator[EventLine]:
    """Each impression, then a click and its dwell, in seconds, if there was one."""
    for i, row in enumerate(zip(*(column.tolist() for column in impressions), strict=True)):
        time_ms, user, track, device, click, click_after_ms, dwell_seconds, _ = row
        name, answered_ms = f"s{i:06d}", time_ms + click_after_ms
        yield impression_line(name, _listener_id(user), _track_id(track), time_ms, {"device": DEVICES[device]})
        if click:
            seconds = round(dwell_seconds, 2)
            yield feedback_line(name, "click", 1, answered_ms)
            yield feedback_line(name, "dwell", seconds, answered_ms + int(seconds * 1000))


_AS_OF = datetime(2025, 12, 31, tzinfo=UTC)  # the day before the first event


class Sizes(NamedTuple):
    """How much is simulated. Two in three of the target's tracks have a clip in the source."""

    events: int = 20_000
    users: int = 600
    items: int = 400
    source_rows: int = 200_000
    source_users: int = 3_000
    source_items: int = 800


def write_simulated(folder: Path, sizes: Sizes, seed: int) -> int:
    """Write the pair to the new `folder`; its number of impressions. Same sizes and seed, same files.

    truth.json holds the AUC of the true probabilities: only by chance can a student do better.
    """
    world = _World(seed)
    shared = min(2 * sizes.items // 3, sizes.source_items)
    works = world.works(sizes.items + sizes.source_items - shared)
    tracks = world.random.permutation(sizes.items)  # a track's number says nothing about whether it has a clip
    clips = np.concatenate([np.arange(shared), np.arange(sizes.items, len(works.style))])
    listeners = world.people(sizes.users)
    impressions = _impressions(world, works, listeners, tracks, sizes.events)
    # A task whose labels are all of one class has no AUC.
    auc = exact_auc(impressions.click.astype(np.float32), impressions.click_chance.astype(np.float32))
    with new_folder(folder) as arriving:
        copy_template("simulated", arriving)
        _write_features(arriving, listeners, works, tracks, shared)
        write_events(arriving, _event_lines(impressions))
        write_json(arriving, TRUTH, {"best_auc": {} if auc is None else {"click": round(auc, 4)}})
        save_source(_source(world, works, clips, sizes.source_rows, sizes.source_users), arriving)
    return sizes.events


def _write_features(folder: Path, listeners: People, works: Works, tracks: Ints, shared: int) -> None:
    users = {
        "user_id": [_listener_id(user) for user in range(len(listeners.age))],
        "country": [COUNTRIES[country] for country in listeners.country],
        "age": listeners.age,
    }
    write_table(folder, "listener", users, _AS_OF)
    items = {
        "item_id": [_track_id(track) for track in range(len(tracks))],
        "style": [STYLES[style] for style in works.style[tracks]],
        "tempo": works.tempo[tracks].astype(np.float32),
        "sound": pa.array(works.sound_IK[tracks].tolist(), pa.list_(pa.float32())),
        "clip": np.where(tracks < shared, tracks + 1, 0),  # 0: no clip in the source
    }
    write_table(folder, "track", items, _AS_OF)
