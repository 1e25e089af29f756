"""Keys, variables and commands that earlier releases had: what to do where a project still has one.

A removal adds its line here; `graft check`, the settings and the command line answer with it.
"""

from collections.abc import Mapping
from copy import deepcopy
from functools import reduce
from typing import Any

KEYS: Mapping[str, str] = {
    "features.profiles.*.max_age_seconds": "profiles are computed again each day: remove the line",
    "gate.after_examples": "its default 500 is fixed: remove the line",
    "gate.error_rate": "its default 0.005 is fixed: remove the line",
    "gate.largest_calibration": "its default 2 is fixed: remove the line",
    "gate.largest_gain": "its default 0.2 is fixed: remove the line",
    "gate.least_calibration": "its default 0.5 is fixed: remove the line",
    "gate.lost_share": "its default 0.5 is fixed: remove the line",
    "gate.slices.*.bound": "its default 0.02 is fixed: remove the line",
    "distillation.*.temperature": "its default 1 is fixed: remove the line",
    "sampling.drawn_from_same": "remove the line: negatives are drawn from all known items; such a recipe ordered what "
    "was shown worse (docs/decisions/024-drawn-negatives.md)",
    "skew": "its defaults are fixed (docs/serving.md): remove the table",
    "stream.commit_seconds": "its default 0.5 is fixed: remove the line",
    "stream.retention": "remove the table; topics keep the retention that they have, and Kafka's kafka-configs.sh sets "
    "another (docs/operations.md)",
    "student.cross_layers": "its default 0 is fixed: remove the line, and learn a student that had another anew "
    "(docs/operations.md)",
    "student.embedding_learning_rate": "its default 0.05 is fixed: remove the line",
    "student.replay_batches": "its default 1 is fixed: remove the line",
    "student.replay_capacity": "its default 16384 is fixed: remove the line, and learn a student that had another anew "
    "(docs/operations.md)",
    "teacher.every_seconds": "its default 1 is fixed: remove the line",
    "teacher.server.concurrency": "its default 4 is fixed: remove the line",
    "teacher.server.timeout_seconds": "its default 10 is fixed: remove the line, and lower teacher.server.batch_rows "
    "where the server needs longer",
    "teacher.use_before_trained_until": "leave out teacher.trained_until instead, where it was true",
    "teacher.warn_fallback_share": "its default 0.2 is fixed: remove the line",
    "distillation.*.adapter": "leave it out: the guard weighs a wrong teacher's answer",
    "distillation.*.half_life_examples": "leave it out: the weight stays",
    "distillation.*.loss": "leave it out: the head learns the teacher's probability or value",
    "unshown": "remove the table: such rows taught the student nothing (docs/decisions/006-distillation.md)",
    "teacher.torch_export": "export the teacher to ONNX instead: docs/export-a-teacher.md",
}
"""By key of graft.toml, as its faults write it; ``*`` is the number of an entry, or a name that users give.

Among them are keys that the models still have as fields without a description, which are fixed."""

VARIABLES: Mapping[str, str] = {
    "GRAFT_PAIR": "docker compose takes GRAFT_PROJECT, the project's folder",
}
"""By environment variable."""

COMMANDS: Mapping[str, str] = {
    "graft dlq show": "use 'graft dlq ls TOPIC PARTITION OFFSET'",
    "graft pair csv": "use 'graft pair make movielens DIR --csv'",
    "graft student diff": "use 'graft student show NEW --against OLD'",
    "graft student release": "use 'graft student hold --end'",
    "graft student skew": "use 'graft student show --skew'",
    "graft teacher get": "use 'graft teacher explain --cached --user USER --item ITEM'",
    "graft teacher profile": "use 'graft teacher backfill --profiles'",
    "graft teacher rm": "use 'graft reset --generation DIGEST'",
    "graft teacher stats": "use 'graft teacher ls current', or the generation in place of 'current'",
}
"""By command as it was typed, such as ``graft look``."""


def without_removed(
    table: Mapping[str, Any], keys: Mapping[str, str] | None = None
) -> tuple[dict[str, Any], dict[tuple[str, ...], str]]:
    """A graft.toml, or another table, without the keys that were removed; of each, by its place, what to do."""
    kept, faults = deepcopy(dict(table)), dict[tuple[str, ...], str]()
    for pattern, advice in (KEYS if keys is None else keys).items():
        for place in _places(kept, tuple(pattern.split("."))):
            above = reduce(lambda inner, key: inner[int(key) if isinstance(inner, list) else key], place[:-1], kept)
            del above[place[-1]]
            faults[place] = f"{'.'.join(place)}: was removed; {advice}"
    return kept, faults


def _places(table: Any, pattern: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Where a table has keys of this pattern."""
    if not pattern:
        return [()]
    entries = {str(i): entry for i, entry in enumerate(table)} if isinstance(table, list) else table
    if not isinstance(entries, dict):
        return []
    names = list(entries) if pattern[0] == "*" else [name for name in entries if name == pattern[0]]
    return [(name, *rest) for name in names for rest in _places(entries[name], pattern[1:])]
