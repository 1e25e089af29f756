"""Profiles: what the teacher says of a user on average over reference items, and of an item over reference users.

A profile follows from the batch tables and the teacher alone. Context and pushed features are missing in the rows that
are scored, so that the domain map gives their defaults: no label and no time of day moves a profile.

Shapes: N ids, R references, W numbers of a vector.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import mmh3
import numpy as np
from numpy.typing import NDArray
from prometheus_client import Counter

from features.config import ProfileConfig
from features.online.reader import FeatureReader
from features.spec import Entity, EntityId, Feature, FeatureSpec
from runtime.errors import ConfigurationError
from teacher_cache.domain.domain_map import DomainMap
from teacher_cache.domain.request_scorer import BATCH_ROWS
from teacher_cache.teacher import Teacher, TeacherOutputError, counted_as_busy

_UNSCORED = Counter("graft_teacher_unscored_profile_rows", "Rows left out of a profile: the teacher cannot score them.")


class Profiles(NamedTuple):
    """The profiles of N ids for one push source: the values of `features.push` and of the push log."""

    config: ProfileConfig
    of: Mapping[EntityId, Mapping[str, float | Sequence[float]]]
    """By id, each column's value."""

    def has(self, entity: Entity, entity_id: EntityId) -> bool:
        """Whether the id has a profile."""
        return entity == self.config.entity and entity_id in self.of

    def rows(
        self,
        push_source: str,  # noqa: ARG002 - a `PushedValues` signature; there is one
        entity: Entity,  # noqa: ARG002
        ids: Iterable[EntityId],
    ) -> dict[str, list[float | Sequence[float]]]:
        """One list per column, with a value for each of `ids`, which have profiles."""
        profiles = [self.of[entity_id] for entity_id in ids]
        return {column: [profile[column] for profile in profiles] for column in self.config.columns}


def faults_of_profiles(features: Iterable[Feature], outputs: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Each feature that cannot hold what the teacher gives. `outputs`: the shape of a row of each task and vector."""
    faults = []
    for feature in features:
        shape = outputs.get(feature.profile_of)
        if shape is None:  # no profile, or of an output that does not exist, which is a fault of its own
            continue
        where = f"graft.toml: features.{feature.role}: {feature.name!r} is a profile of {feature.profile_of!r}"
        if (feature.dtype == "float_list") != bool(shape):
            what = f"a list of {shape[0]} numbers" if shape else "a number"
            faults.append(f"{where}, which is {what}; its field in the repository has another type")
        elif shape and feature.role == "embedding" and feature.width != shape[0]:
            faults.append(f"{where}, which has {shape[0]} numbers; the field or its default has {feature.width}")
    return faults


def draw_references(ids: Sequence[EntityId], count: int) -> list[EntityId]:
    """`count` of the ids, or all where there are fewer: those with the lowest hashes, the same wherever it is asked."""
    return sorted(ids, key=lambda one: mmh3.hash64(str(one).encode("utf-8", "surrogatepass"), signed=False))[:count]


class Profiler:
    """Scores ids against references. `pushed_views`: the views whose features are missing in the rows scored.

    ConfigurationError when a feature cannot hold what the teacher gives.
    """

    def __init__(
        self,
        teacher: Teacher,
        domain_map: DomainMap,
        spec: FeatureSpec,
        reader: FeatureReader,
        pushed_views: Collection[str],
    ) -> None:
        if faults := faults_of_profiles(spec.features, teacher.outputs):
            raise ConfigurationError(faults)
        self._teacher = teacher
        self._domain_map = domain_map
        self._reader = reader
        self._missing = [f.name for f in spec.features if f.source == "context" or f.view in pushed_views]

    def profiles(self, config: ProfileConfig, ids: Sequence[EntityId], references: Sequence[EntityId]) -> Profiles:
        """The profiles of N ids, with the features of now; one that the teacher cannot score with any is left out.

        ServiceUnavailableError when the feature store does not answer.
        """
        of: dict[EntityId, Mapping[str, float | Sequence[float]]] = {}
        size = max(1, BATCH_ROWS // len(references))
        for at in range(0, len(ids), size):
            some = ids[at : at + size]
            output = self._output(config.entity, some, references)
            for place, entity_id in enumerate(some):
                rows = slice(place * len(references), (place + 1) * len(references))
                means = {column: _mean(output[name][rows]) for column, name in config.columns.items()}
                if found := {column: mean for column, mean in means.items() if mean is not None}:
                    of[entity_id] = found  # what the teacher scores, it scores in all tasks
        return Profiles(config, of)

    def _output(
        self, entity: Entity, ids: Sequence[EntityId], references: Sequence[EntityId]
    ) -> dict[str, NDArray[np.float32]]:
        """What the teacher says of each id with each reference, by name: [N * R] or [N * R, W]; NaN: nothing."""
        of_ids = [entity_id for entity_id in ids for _ in references]
        of_references = list(references) * len(ids)
        users, items = (of_ids, of_references) if entity == "user" else (of_references, of_ids)
        columns = self._reader.read(users, items, [{}] * len(users))
        missing: dict[str, list[Any]] = dict.fromkeys(self._missing, [None] * len(users))
        return outputs_of_rows(self._teacher, self._domain_map.map_rows({**columns, **missing}).inputs)


def outputs_of_rows(teacher: Teacher, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.float32]]:
    """What the teacher says of each row, by name of task and vector; NaN of those that it cannot score."""
    row_B = np.arange(len(next(iter(inputs.values()))))
    output = {name: np.full((len(row_B), *row), np.nan, np.float32) for name, row in teacher.outputs.items()}
    while len(row_B):
        try:
            with counted_as_busy():
                found = teacher.describe({name: tensor[row_B] for name, tensor in inputs.items()})
        except TeacherOutputError as error:
            _UNSCORED.inc(len(error.rows))
            row_B = np.delete(row_B, error.rows)
            continue
        for name, value_B in found.items():
            output[name][row_B] = value_B
        break
    return output


def _mean(value_R: NDArray[np.float32]) -> float | list[float] | None:
    """The mean over the rows that are scored; None where there is none."""
    scored_R = value_R[np.isfinite(value_R.reshape(len(value_R), -1)).all(axis=1)]
    mean: float | list[float] = scored_R.astype(np.float64).mean(axis=0).tolist() if len(scored_R) else []
    return mean if len(scored_R) else None
