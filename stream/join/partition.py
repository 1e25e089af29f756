"""One partition of the stream: its inputs in event-time order, its watermark, join, aggregates and positions."""

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Self

from pydantic import Field

from features.aggregates import Aggregates
from runtime.errors import GraftError, InvalidInputError
from runtime.frozen_model import FrozenModel
from stream.config import StreamConfig, Topics
from stream.events import Feedback, Impression
from stream.join.aggregation import EntityAggregates, unpacked
from stream.join.join import Join
from stream.join.log_cleaner import Entry
from stream.join.sampling import KnownItems
from stream.join.validation import Validator
from stream.messages import Message
from stream.positions import Merge, Positions
from stream.tasks import TaskSpec


class WatermarkState(FrozenModel):
    """What survives a restart; times are event time in milliseconds."""

    watermark_ms: int | None = None
    newest_ms: dict[str, int] = Field(default={})
    """The newest event time seen, per input."""


class Watermark:
    """The least of the inputs' newest event times; it never goes back.

    So an event of one input cannot bend it, however odd its time: the other input holds it. An input without any event
    holds it back too; what waits for it is closed by a pause (`Join.tick`), which leaves event time alone.
    """

    def __init__(self, inputs: Iterable[str]) -> None:
        self._inputs = tuple(inputs)
        self._newest_ms: dict[str, int] = {}
        self.value_ms: int | None = None

    def restored(self, state: WatermarkState) -> Self:
        """Go on from a saved state."""
        self.value_ms, self._newest_ms = state.watermark_ms, dict(state.newest_ms)
        return self

    def state(self) -> WatermarkState:
        """What `restored` takes."""
        return WatermarkState.model_construct(watermark_ms=self.value_ms, newest_ms=dict(self._newest_ms))

    def newest_ms(self, source: str) -> int:
        """The newest event time of an input; -1 before its first event."""
        return self._newest_ms.get(source, -1)

    def observe(self, source: str, event_time_ms: int) -> None:
        """A record of this input with this event time was taken."""
        if event_time_ms <= self.newest_ms(source):
            return
        self._newest_ms[source] = event_time_ms
        if len(self._newest_ms) == len(self._inputs):
            self.value_ms = max(min(self._newest_ms.values()), -1 if self.value_ms is None else self.value_ms)


POSITION = "position"


@dataclass(frozen=True)
class Taken:
    """One input message in its turn; `event` is None where it could not be used: `code` and `fault` then say why."""

    message: Message
    event: Impression | Feedback | None
    reached_ms: int = 0
    """How far the event moves event time: to its own time, but not past the clocks that saw it come."""
    code: str = ""
    fault: str = ""


class Partition:
    """The state of partition `number`. Clocks are passed in, in milliseconds.

    `positions` has the offset of the first record not taken yet of each input and of the updates of aggregates. A
    restart needs these, the join's state and the aggregates, and nothing else.
    """

    def __init__(
        self,
        number: int,
        topics: Topics,
        config: StreamConfig,
        tasks: Sequence[TaskSpec],
        aggregates_factory: Callable[[], Aggregates],
    ) -> None:
        self.number = number
        self.inputs = (topics.impressions, topics.feedback)
        self.updates = topics.aggregate_updates
        self.join = Join(tasks, config.dedup_seconds, config.idle_seconds)
        self.aggregates = EntityAggregates(aggregates_factory)
        self.known = KnownItems()
        self.watermark = Watermark(self.inputs)
        self.positions = self._positions_at({})
        self._has_others = config.partitions > 1
        self._max_ahead_ms = round(config.max_ahead_seconds * 1000)
        self._taken = False
        self._put_back: list[Taken] = []
        self._merge: Merge[str, Taken] = Merge(self.inputs)
        self._last_ms = dict.fromkeys(self.inputs, 0)

    def add(self, message: Message, validator: Validator, wall_ms: int) -> None:
        """Buffer the next message of one of the inputs. A message that cannot be used takes its predecessor's time.

        `wall_ms`: our clock. An event too far ahead of it, or of the broker's, cannot be used.
        """
        topic = message.topic
        clock_ms = wall_ms if message.appended_ms is None else min(wall_ms, message.appended_ms)
        try:
            is_impression = topic == self.inputs[0]
            event = validator.impression(message.value) if is_impression else validator.feedback(message.value)
        except InvalidInputError as error:
            taken = Taken(message, None, code="invalid", fault=str(error))
        else:
            ahead_ms = event.event_time_ms - clock_ms
            if ahead_ms > self._max_ahead_ms:
                fault = f"is {ahead_ms} ms ahead of the clock; at most {self._max_ahead_ms} ms are allowed"
                taken = Taken(message, None, code="ahead", fault=f"event_time_ms: {event.event_time_ms} {fault}")
            else:
                taken = Taken(message, event, min(event.event_time_ms, clock_ms))
                self._last_ms[topic] = event.event_time_ms
        self._merge.add(topic, self._last_ms[topic], taken)

    def count(self, message: Message) -> None:
        """Count the next record of updates: they are no input of the merge, their log alone orders them."""
        self.positions.take(message.topic, message.offset)
        self._taken = True
        for update in unpacked(message):
            self.aggregates.count(update)

    def start_at(self, offsets: Mapping[str, int]) -> None:
        """The next record of each topic is the one at this offset, or a later one."""
        self.positions = self._positions_at(offsets)

    @property
    def shown_ms(self) -> int:
        """The newest event time of the impressions taken; -1 before the first."""
        return self.watermark.newest_ms(self.inputs[0])

    def buffered(self, topic: str) -> int:
        """Messages of an input that wait for the other input, or for a step that may join them."""
        waiting = sum(taken.message.topic == topic for taken in self._put_back) if self._put_back else 0
        return self._merge.buffered(topic) + waiting

    def take(self, caught_up: Collection[str], limit: int) -> list[Taken]:
        """At most `limit` messages whose turn has come, each to be `joined` or, with all after it, `put_back`.

        `caught_up` names the inputs that have no more on the broker.
        """
        waiting, self._put_back = self._put_back, []
        return [*waiting, *islice(self._merge.take(caught_up), max(0, limit - len(waiting)))]

    def put_back(self, taken: Iterable[Taken]) -> None:
        """Let messages wait that were not joined: they are the next ones."""
        self._put_back = [*taken, *self._put_back]

    def joined(self, taken: Taken) -> None:
        """A message was joined: its position and its event time pass."""
        self.positions.take(taken.message.topic, taken.message.offset)
        self._taken = True
        if taken.event is not None:
            self.watermark.observe(taken.message.topic, taken.reached_ms)
            self.join.advance(self.watermark.value_ms)

    def tick(self, caught_up: Collection[str], now_ms: float) -> None:
        """Let wall-clock time pass, and go on with what event time has left to be done."""
        has_more = any(topic not in caught_up or self.buffered(topic) for topic in self.inputs)
        self.join.tick(now_ms, is_pause=not has_more)
        self.join.advance(self.watermark.value_ms)

    def changes(self) -> list[Entry]:
        """The entries that changed since the last call, the position among them; none when nothing did."""
        changes = [*self.join.changes(), *self.aggregates.changes(), *self.known.changes()]
        if not changes and not self._taken:
            return []
        self._taken = False
        return [*changes, self._position()]

    def entry(self, key: str) -> bytes | None:
        """The value of an entry that has not changed since the last `changes()`; None when it is gone."""
        return self.join.entry(key) or self.aggregates.entry(key) or self.known.entry(key)

    def restore(self, entries: Mapping[str, bytes], now_ms: float) -> None:
        """Take back a state that the state log gave; nothing to do where it is empty.

        GraftError for aggregates of earlier versions, which each partition counted for the entities of all.
        """
        self.join.tick(now_ms, is_pause=False)
        if POSITION not in entries:
            return
        position = json.loads(entries[POSITION])
        watermark = WatermarkState.model_validate(position["watermark"])
        if self.updates not in position["offsets"] and self._has_others and self.aggregates.are_in(entries):
            raise GraftError(
                f"the join's state of partition {self.number} is of an earlier version of graft, whose running "
                "aggregates are right for one partition alone: start again with a new stream.topic_prefix"
            )
        self.start_at(position["offsets"])
        self.watermark.restored(watermark)
        self.join.restore(entries, watermark.watermark_ms)
        self.aggregates.restore(entries)
        self.known.restore(entries)

    def _positions_at(self, offsets: Mapping[str, int]) -> Positions[str]:
        return Positions(lambda topic: f"topic {topic}, partition {self.number}", offsets)

    def _position(self) -> Entry:
        position = {"offsets": dict(self.positions), "watermark": self.watermark.state().model_dump()}
        return POSITION, json.dumps(position).encode()
