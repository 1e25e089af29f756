"""The simulated source: a video platform with many viewers, whose rows the teacher learns."""

from typing import Any

import numpy as np

from lab.pairs.simulated.world import COUNTRIES, DEVICES, STYLES, Ints, Works, World
from lab.pairs.source import count_before, mean_before
from teacher_cache.fit.source import DesignInput, Source, TeacherDesign

AGE_GROUPS = (25, 35, 50)  # the first year of each group after the youngest
_PLAY_OFFSET, _FOLLOW_OFFSET = -0.3, -2.0
_NO_PLAYS_SHARE = 0.5


def simulate_source(world: World, works: Works, clips: Ints, rows: int, viewers: int) -> Source:
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
