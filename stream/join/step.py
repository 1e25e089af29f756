"""One step of the stream: validate messages, merge them by event time, read features, join, count.

A step is pure: it has no Kafka, no clock and no Redis. It changes the partitions that it is given and nothing else;
what is to be written or pushed is in the effects that it returns. The stream process and the study both use it.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

from features.spec import FeatureSpec, Value
from runtime.tracing import traceparent_in
from stream.events import Example, Feedback, Impression, TeacherRequest
from stream.join.aggregation import AggregateUpdate, updates_of
from stream.join.partition import Partition, Taken
from stream.join.sampling import Drawing, Sampling, SamplingConfig
from stream.join.validation import Validator
from stream.kafka.dead_letters import DeadLetter
from stream.messages import Message
from stream.tasks import TaskSpec

ReadFeatures = Callable[[Sequence[Impression]], Mapping[str, Sequence[Value]]]
"""Gives the features of B impressions as they are now: one column of B raw values per feature of the spec."""


class Arrival(NamedTuple):
    """What came since the last step.

    `messages` follow each other in each partition of a topic: of the inputs, and of the updates of aggregates.
    `caught_up` names each (topic, partition) of an input that has no more messages now. `now_ms` is a clock that never
    jumps, of which only differences count; `wall_ms` is the time since 1970 by our clock.
    """

    messages: Sequence[Message]
    caught_up: Collection[tuple[str, int]]
    now_ms: float
    wall_ms: int


class Effects(NamedTuple):
    """What a step makes of one partition, each list in its order.

    `taken` counts the messages that were joined or put aside, per topic; `duplicates` counts the impressions among them
    whose id had come before. `updates` are what closed impressions add to aggregates, of whichever partition; so do the
    `left_out` ones, which sampling has made no example of; what it has drawn adds nothing. `has_more`: the next step
    may go on without new messages. `traceparents`: of the requests whose impression came with one, by its id.
    """

    partition: int
    taken: Counter[str]
    requests: list[TeacherRequest]
    examples: list[Example]
    dead_letters: list[DeadLetter]
    duplicates: int
    updates: list[AggregateUpdate]
    left_out: int
    has_more: bool
    traceparents: Mapping[str, str]


class _Turn(NamedTuple):
    """What the joining of a partition's messages has done so far; `drawn` are rows that have no features yet."""

    counts: Counter[str]
    invalid: list[DeadLetter]
    drawn: list[Example]
    has_more: bool
    traceparents: dict[str, str]


class StreamStep:
    """Joins what arrives in the partitions of one stream.

    `read` is asked once a step for all new impressions together, and once for all rows that were drawn beside them;
    what it raises leaves the partitions in a state that cannot be gone on from.
    """

    def __init__(
        self,
        spec: FeatureSpec,
        tasks: Sequence[TaskSpec],
        read: ReadFeatures,
        sampling: SamplingConfig | None = None,
    ) -> None:
        """Without `sampling` every closed impression becomes an example, and nothing else does."""
        self._spec = spec
        self._sampling = Sampling(sampling or SamplingConfig(), tasks)
        self._drawing = Drawing(sampling or SamplingConfig(), tasks)
        self._validator = Validator(spec, tasks)
        self._read = read

    def take(self, partitions: Mapping[int, Partition], arrival: Arrival, limit: int) -> list[Effects]:
        """Join at most `limit` messages of each partition; the effects of each, in the order of `partitions`.

        Fewer where event time, or a pause, is the end of so much that it takes more than one step (`join.MOST_ENDED`).
        Updates of aggregates are counted at once, all of them.
        """
        # 1. Validate, which gives each message its event time; count the updates of aggregates.
        for message in arrival.messages:
            partition = partitions[message.partition]
            if message.topic == partition.updates:
                partition.count(message)
            else:
                partition.add(message, self._validator, arrival.wall_ms)
        # 2. Merge the two inputs of each partition in event-time order.
        turns = {number: _turn(partition, arrival, limit) for number, partition in partitions.items()}
        # 3. Read the features of the new impressions, as they are now.
        events = [one.event for turn in turns.values() for one in turn]
        requests = iter(self._requests([event for event in events if isinstance(event, Impression)]))
        # 4. Join; beside each new impression draw negatives, and read their features as they are now, too.
        joined = [_joined(p, turns[number], requests, self._drawing, limit) for number, p in partitions.items()]
        self._fill([example for turn in joined for example in turn.drawn])
        # 5. Aggregates see closed examples only: their labels are final, and older than their readers.
        return [self._effects(p, turn) for p, turn in zip(partitions.values(), joined, strict=True)]

    def _requests(self, impressions: Sequence[Impression]) -> list[TeacherRequest]:
        if not impressions:
            return []
        rows = self._spec.rows_of(self._read(impressions))
        return [
            TeacherRequest.of_checked({**impression.__dict__, "spec_id": self._spec.spec_id, "features": row})
            for impression, row in zip(impressions, rows, strict=True)
        ]

    def _fill(self, drawn: Sequence[Example]) -> None:
        """Give the drawn rows their features: they may have been closed already, so the lists themselves are filled."""
        for example, request in zip(drawn, self._requests([_impression_of(one) for one in drawn]), strict=True):
            example.features.extend(request.features)

    def _effects(self, partition: Partition, turn: _Turn) -> Effects:
        joined = partition.join.drain()
        # Aggregates count what sampling leaves out, too, and nothing that it draws: they mean the whole log.
        shown = [example for example in joined.examples if example.sampled is None]
        updates = [one for example in shown for one in updates_of(example, partition.aggregates.entities)]
        examples = [
            kept
            for example in joined.examples
            if (kept := self._sampling.kept(example, is_alone=example.impression_id in joined.alone))
        ]
        return Effects(
            partition.number,
            turn.counts,
            [*joined.requests, *map(_request_of, turn.drawn)],
            examples,
            [*turn.invalid, *joined.dead_letters],
            joined.duplicates,
            updates,
            len(joined.examples) - len(examples),
            turn.has_more,
            turn.traceparents,
        )


def _impression_of(example: Example) -> Impression:
    return Impression.of_checked({name: getattr(example, name) for name in Impression.model_fields})


def _request_of(example: Example) -> TeacherRequest:
    return TeacherRequest.of_checked({name: getattr(example, name) for name in TeacherRequest.model_fields})


def _turn(partition: Partition, arrival: Arrival, limit: int) -> list[Taken]:
    """The messages whose turn it is, after wall-clock time has passed; none where that has ended enough for a step."""
    caught_up = [topic for topic in partition.inputs if (topic, partition.number) in arrival.caught_up]
    partition.tick(caught_up, arrival.now_ms)
    return [] if partition.join.is_exhausted else partition.take(caught_up, limit)


def _joined(
    partition: Partition, turn: Sequence[Taken], requests: Iterator[TeacherRequest], drawing: Drawing, limit: int
) -> _Turn:
    """Join the messages of a turn, and put back those that must wait; `requests` gives those of its impressions."""
    counts, invalid, waiting, drawn = Counter[str](), list[DeadLetter](), list[Taken](), list[Example]()
    traceparents = dict[str, str]()
    for one in turn:
        request = next(requests) if isinstance(one.event, Impression) else None
        if partition.join.is_exhausted:
            waiting.append(one)
            continue
        counts[one.message.topic] += 1
        if request:
            if partition.join.impression(request, one.message):
                if one.message.headers and (traceparent := traceparent_in(one.message.headers)):
                    traceparents[request.impression_id] = traceparent
                if rows := drawing.beside(request, partition.known):
                    partition.join.beside(request.impression_id, rows)
                    drawn += rows
        elif isinstance(one.event, Feedback):
            partition.join.feedback(one.event, one.message)
        else:
            invalid.append(DeadLetter(one.message, one.code, one.fault, "validate"))
        partition.joined(one)
    partition.put_back(waiting)
    has_more = partition.join.is_exhausted or counts.total() == limit
    return _Turn(counts, invalid, drawn, has_more, traceparents)
