"""Writes the simulated project folder without the teacher, which `graft pair train-teacher` adds."""

from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from lab.pairs.project_folder import (
    TRUTH,
    copy_template,
    new_folder,
    save_source,
    write_events,
    write_json,
    write_table,
)
from lab.pairs.simulated.world import (
    COUNTRIES,
    STYLES,
    Impressions,
    Ints,
    People,
    Works,
    World,
    event_lines,
    listener_id,
    simulate_source,
    simulate_target,
    track_id,
)
from student.evaluate.metrics import exact_auc

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
    """Write the pair to `folder`; its number of impressions. Same sizes and seed, same files.

    truth.json holds the AUC of the true probabilities: only by chance can a student do better. InvalidInputError
    when the folder is not empty.
    """
    with new_folder(folder) as arriving:
        copy_template("lab.pairs.simulated", arriving)
        _simulate(arriving, sizes, seed)
    return sizes.events


def _simulate(folder: Path, sizes: Sizes, seed: int) -> None:
    world = World(seed)
    shared = min(2 * sizes.items // 3, sizes.source_items)
    works = world.works(sizes.items + sizes.source_items - shared)
    tracks = world.random.permutation(sizes.items)  # a track's number says nothing about whether it has a clip
    clips = np.concatenate([np.arange(shared), np.arange(sizes.items, len(works.style))])
    listeners = world.people(sizes.users)
    impressions = simulate_target(world, works, listeners, tracks, sizes.events)
    _write_features(folder, listeners, works, tracks, shared)
    write_events(folder, event_lines(impressions))
    write_json(folder, TRUTH, {"best_auc": _best_auc(impressions)})
    save_source(simulate_source(world, works, clips, sizes.source_rows, sizes.source_users), folder)


def _write_features(folder: Path, listeners: People, works: Works, tracks: Ints, shared: int) -> None:
    users = {
        "user_id": [listener_id(user) for user in range(len(listeners.age))],
        "country": [COUNTRIES[country] for country in listeners.country],
        "age": listeners.age,
    }
    write_table(folder, "listener", users, _AS_OF)
    items = {
        "item_id": [track_id(track) for track in range(len(tracks))],
        "style": [STYLES[style] for style in works.style[tracks]],
        "tempo": works.tempo[tracks].astype(np.float32),
        "sound": pa.array(works.sound_IK[tracks].tolist(), pa.list_(pa.float32())),
        "clip": np.where(tracks < shared, tracks + 1, 0),  # 0: no clip in the source
    }
    write_table(folder, "track", items, _AS_OF)


def _best_auc(impressions: Impressions) -> dict[str, float]:
    """The AUC of the true probabilities by task; a task whose labels are all of one class has none."""
    auc = exact_auc(impressions.click.astype(np.float32), impressions.click_chance.astype(np.float32))
    return {} if auc is None else {"click": round(auc, 4)}
