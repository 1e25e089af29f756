"""The running aggregates of a log counted anew: from its own examples alone, with labels known after a delay."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from features.aggregates import Aggregates
from features.config import AggregateConfig
from features.spec import Value
from lab.study.memory_store import MemoryStore, Sources
from lab.study.study_log import StudyLog
from stream.events import Example
from stream.join.aggregate_updates import updates_of
from stream.join.aggregation import EntityAggregates, push_waiting


def recounted(
    log: StudyLog, configs: Sequence[AggregateConfig], pushed: Mapping[str, str], known_N: NDArray[np.intp]
) -> StudyLog:
    """The same examples; each has the running aggregates of those before it whose labels were known when it came.

    `pushed`: push source -> view. `known_N`: for each example the place of the first one that comes when its labels are
    known. All other features stay as they were logged.
    """
    views = {pushed[config.push_source] for config in configs}
    places = [i for i, feature in enumerate(log.spec.features) if feature.view in views]
    if not places:
        return log
    counted = _Counted(log, configs, pushed)
    records = []
    for record, values in zip(log.records, counted.before_each(known_N), strict=True):
        features = list(record.example.features)
        for place in places:
            features[place] = values[place]
        records.append(record._replace(example=record.example.model_copy(update={"features": features})))
    return log._replace(records=records, logged=None)


class _Counted:
    """Counts a log's examples in their order, and reads what the online store would have."""

    def __init__(self, log: StudyLog, configs: Sequence[AggregateConfig], pushed: Mapping[str, str]) -> None:
        self._log = log
        self._factory = partial(Aggregates, configs)
        self._aggregates = EntityAggregates(self._factory)
        self._store = MemoryStore(log.spec, Sources({}, pushed), configs)

    def before_each(self, known_N: NDArray[np.intp]) -> Iterator[list[Value]]:
        """Of each example the values of all features that are known when it comes; None but for aggregates."""
        counted = 0
        for n, example in enumerate(self._log.examples):
            while counted < n and known_N[counted] <= n:
                self._count(self._log.records[counted].example)
                counted += 1
            columns = self._store.read_at([example.user_id], [example.item_id], [{}], [example.event_time_ms])
            yield [columns[feature.name][0] for feature in self._log.spec.features]

    def _count(self, example: Example) -> None:
        if example.sampled:
            return  # nobody was shown it
        for update in updates_of(example, self._aggregates.entities):
            self._aggregates.count(update)
        push_waiting({0: self._aggregates}, {0: 0}, example.event_time_ms, self._factory, self._store)
