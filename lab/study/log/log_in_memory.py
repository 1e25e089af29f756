"""The examples of a project's own events, without Kafka and Redis: the stream's step on features in memory.

It equals the log that the stream archives, with three differences. Here a closed example moves its aggregates before
the next impression is read. In the stream that takes until the next commit (`stream.commit_seconds` of wall clock), so
a replay that is faster than real time reads aggregates that are older in event time. And of a table with several rows
of an entity an impression has here the last one that had begun; the stream has the newest one alone, and where that
begins after the impression it has none. In neither has it a row that begins later. And no negative is left out here,
whatever `[sampling]` says: a study judges on the whole log. Negatives are drawn as in the stream.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from features.aggregates import Aggregates
from features.config import AggregateConfig
from features.online.reader import Columns
from features.spec import FeatureSpec, Value
from graft.progress import Advance
from graft.project import Project
from lab.study.log.memory_store import MemoryStore, Sources, digest_of, open_store, teacher_files
from lab.study.log.study_log import StudyLog
from stream.events import Example, Impression
from stream.join.aggregation import EntityAggregates, push_waiting, updates_of
from stream.join.partition import Partition
from stream.join.sampling import SamplingConfig
from stream.join.step import Arrival, StreamStep
from stream.log.examples import ExampleRecord
from stream.messages import Message
from stream.replay.event_file import FileEvent, count_events, read_events

_LONG_AFTER_MS = 2.0**53  # later than every event time


def records_of(
    project: Project, spec: FeatureSpec, sources: Sources, events: Path, advance: Advance
) -> Iterator[ExampleRecord]:
    """The examples of the event file in the stream's order; offsets count them from 0 in one partition.

    Events that the stream would make dead letters are left out.
    """
    stream = _Stream(project, spec, sources)
    total = count_events(events)
    sent = enumerate(_messages(read_events(events), stream.inputs))
    offset = 0
    for number, message in chain(sent, [(total, None)]):
        advance(number, total)
        for example in stream.take(message) if message else stream.end():
            yield ExampleRecord(0, offset, example)
            offset += 1


def log_key(project: Project, spec: FeatureSpec, sources: Sources, events: Path) -> str:
    """The key of the log that `records_of` gives: a digest of all that it depends on, except the code."""
    joined = project.model_dump_json(include={"tasks", "stream", "features"})
    told: list[str | Path] = [spec.spec_id, joined, sources.key, events]
    if project.sampling.drawn_negatives:
        told.append(_drawing(project).model_dump_json())
    if project.features.profiles:
        told += [project.needed_teacher.model_dump_json(), *teacher_files(project.needed_teacher, project.folder)]
    return digest_of(told)


class _Stream:
    """One partition, one message a step."""

    def __init__(self, project: Project, spec: FeatureSpec, sources: Sources) -> None:
        self._aggregates_factory = partial(Aggregates, project.features.aggregates)
        self._partition = Partition(0, project.topics, project.stream, project.tasks, self._aggregates_factory)
        self.inputs = self._partition.inputs
        self._store = open_store(project, spec, sources)
        self._step = StreamStep(spec, project.tasks, self._features, _drawing(project))
        self._wall_ms = time.time_ns() // 1_000_000

    def take(self, message: Message) -> Iterator[Example]:
        """The examples that this message closes; it waits for its turn while the other input is behind."""
        yield from self._joined(Arrival([message], (), 0.0, self._wall_ms))

    def end(self) -> Iterator[Example]:
        """The examples that are still open, as after a long pause."""
        all_inputs = {(topic, 0) for topic in self.inputs}
        yield from self._joined(Arrival([], all_inputs, 0.0, self._wall_ms))
        yield from self._joined(Arrival([], all_inputs, _LONG_AFTER_MS, self._wall_ms))

    def _joined(self, arrival: Arrival) -> Iterator[Example]:
        """Take steps until there is no more; a closed example moves its aggregates before the next step."""
        has_more = True
        while has_more:
            (effects,) = self._step.take({0: self._partition}, arrival, limit=1)
            for update in effects.updates:
                self._partition.aggregates.count(update)
            counted, shown_ms = {0: self._partition.aggregates}, self._partition.shown_ms
            push_waiting(counted, {0: 0}, shown_ms, self._aggregates_factory, self._store)
            yield from effects.examples
            arrival, has_more = arrival._replace(messages=[]), effects.has_more

    def _features(self, impressions: Sequence[Impression]) -> Columns:
        users, items = [i.user_id for i in impressions], [i.item_id for i in impressions]
        times_ms = [i.event_time_ms for i in impressions]
        return self._store.read_at(users, items, [i.context for i in impressions], times_ms)


def _drawing(project: Project) -> SamplingConfig:
    """What `[sampling]` says of drawn negatives; it leaves none out."""
    return project.sampling.model_copy(update={"one_negative_of": 1})


def _messages(events: Iterator[FileEvent], inputs: tuple[str, str]) -> Iterator[Message]:
    """The messages that `stream.replay.replay` would send; unreadable lines are left out."""
    topic_of = dict(zip(("impression", "feedback"), inputs, strict=True))
    for offset, event in enumerate(events):
        if event.kind != "unreadable":
            yield Message(topic_of[event.kind], 0, offset, event.key, event.value)


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
    return log._replace(records=records)


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
