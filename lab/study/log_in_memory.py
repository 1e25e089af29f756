"""The examples of a project's own events, without Kafka and Redis: the stream's join, aggregates and feature spec.

It equals the log that the stream archives, with one difference: here a closed example moves its aggregates before the
next impression is read. In the stream that takes until the next commit (`stream.commit_seconds` of wall clock), so a
replay that is faster than life reads aggregates that are older in event time.
"""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from features.aggregates import Aggregates
from features.spec import FeatureSpec
from graft.progress import Advance
from graft.project import Project
from lab.study.digest import digest_of
from lab.study.memory_store import MemoryStore, Sources
from stream.aggregation import TotalAggregates
from stream.event_file import FileEvent, count_events, read_events
from stream.events import Example, Feedback, Impression, TeacherRequest
from stream.examples import ExampleRecord
from stream.messages import Message
from stream.partition import Partition, Taken
from stream.validation import Validator


def records_of(
    project: Project, spec: FeatureSpec, sources: Sources, events: Path, advance: Advance
) -> Iterator[ExampleRecord]:
    """The examples of the event file in the stream's order; offsets count them from 0 in one partition.

    Events that the stream would put aside are left out.
    """
    stream = _Stream(project, spec, sources)
    total = count_events(events)
    sent = enumerate(_messages(read_events(events), stream.partition.inputs))
    offset = 0
    for number, message in chain(sent, [(total, None)]):
        advance(number, total)
        for example in stream.take(message) if message else stream.end():
            yield ExampleRecord(0, offset, example)
            offset += 1


def log_key(project: Project, spec: FeatureSpec, sources: Sources, events: Path) -> str:
    """Names the log that `records_of` gives, by all that it depends on but the code."""
    joined = project.model_dump_json(include={"tasks", "stream", "features"})
    return digest_of([spec.spec_id, joined, sources.key, events])


class _Stream:
    """One partition, one event at a time."""

    def __init__(self, project: Project, spec: FeatureSpec, sources: Sources) -> None:
        def aggregates() -> Aggregates:
            return Aggregates(project.features.aggregates)

        self.partition = Partition(0, project.topics, project.stream, project.tasks, aggregates)
        self._spec = spec
        self._validator = Validator(spec, project.tasks)
        self._store = MemoryStore(spec, sources, project.features.aggregates)
        self._total = TotalAggregates(aggregates, [])

    def take(self, message: Message) -> Iterator[Example]:
        """The examples that close with this message; it waits for its turn where the other input is not so far."""
        self.partition.add(message, self._validator, 0.0)
        yield from self._join(())

    def end(self) -> Iterator[Example]:
        """The examples still open, as if the inputs were quiet for long."""
        yield from self._join(self.partition.inputs)
        self.partition.join.advance(2**53)
        yield from self._closed()

    def _join(self, caught_up: tuple[str, ...]) -> Iterator[Example]:
        for taken in self.partition.take(caught_up):
            self._one(taken)
            yield from self._closed()

    def _one(self, taken: Taken) -> None:
        if isinstance(taken.event, Impression):
            self.partition.join.impression(self._request(taken.event), taken.message)
        elif isinstance(taken.event, Feedback):
            self.partition.join.feedback(taken.event, taken.message)
        self.partition.observe(taken)

    def _request(self, impression: Impression) -> TeacherRequest:
        columns = self._store.read([impression.user_id], [impression.item_id], [impression.context])
        (row,) = self._spec.rows_of(columns)
        return TeacherRequest.model_construct(**impression.__dict__, spec_id=self._spec.spec_id, features=row)

    def _closed(self) -> Iterator[Example]:
        for example in self.partition.join.drain().examples:
            self._total.update(example)
            self._total.push(self._store)
            yield example


def _messages(events: Iterator[FileEvent], inputs: tuple[str, str]) -> Iterator[Message]:
    """As `stream.replay` sends them; unreadable lines go where a dead letter would come of them: nowhere."""
    topic_of = dict(zip(("impression", "feedback"), inputs, strict=True))
    for event in events:
        if event.kind != "unreadable":
            yield Message(topic_of[event.kind], 0, 0, event.key, event.value)
