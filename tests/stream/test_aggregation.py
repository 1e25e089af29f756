"""Running aggregates of a stream process: what is pushed, logged and left out across kills."""

import pytest

from features.aggregates import Aggregates
from features.config import AggregateConfig
from runtime.errors import ServiceUnavailableError
from stream.join.aggregation import AggregateUpdate, EntityAggregates, push_waiting

DECAYING = [AggregateConfig(entity="item", push_source="items", half_life_seconds=1, columns={"shown": "count"})]
LONG_AFTER_MS = 100_000  # far beyond 20 half-lives


def make() -> Aggregates:
    return Aggregates(DECAYING)


class Online:
    """The rows of an online store, by item."""

    def __init__(self) -> None:
        self.rows: dict[int | str, float] = {}
        self.is_away = False

    def push(self, aggregates, changed, shown_ms, positions):  # noqa: ARG002 - the protocol
        if self.is_away:
            raise ServiceUnavailableError("away")
        for one in changed["item"]:
            self.rows.pop(one, None)
            if aggregates.has("item", one):
                self.rows[one] = aggregates.rows("items", "item", [one])["shown"][0]
        return 0


class Process:
    """One partition's aggregates; `log` is what a commit has saved."""

    def __init__(self, online: Online, log: dict[str, bytes]) -> None:
        self._online, self.log = online, log
        self._counted = EntityAggregates(make)
        self._counted.restore(log)

    def join(self, item: str, event_time_ms: int) -> None:
        self._counted.count(AggregateUpdate(entity="item", entity_id=item, labels={}, event_time_ms=event_time_ms))

    def commit(self) -> None:
        for key, value in self._counted.changes():
            if value is None:
                del self.log[key]
            else:
                self.log[key] = value

    def entry(self, item: str) -> bytes | None:
        return self._counted.entry(f'aggregate:item:"{item}"')

    def push(self) -> None:
        push_waiting({0: self._counted}, {0: 0}, 0, make, self._online)


@pytest.fixture
def online() -> Online:
    return Online()


@pytest.fixture
def process(online: Online) -> Process:
    """One that has pushed an example of item a, and much later one of item b."""
    process = Process(online, {})
    process.join("a", 0)
    process.commit()
    process.push()
    process.join("b", LONG_AFTER_MS)
    process.commit()
    return process


def test_the_row_of_what_has_decayed_leaves_first_and_then_its_state(online: Online, process: Process) -> None:
    assert online.rows == {"a": 1.0}
    process.push()
    assert online.rows == {"b": 1.0}
    assert sorted(process.log) == ['aggregate:item:"a"', 'aggregate:item:"b"']
    process.commit()
    assert sorted(process.log) == ['aggregate:item:"b"']


def test_an_entry_whose_row_is_still_there_is_written_anew_as_one_of_which_nothing_is_left(
    online: Online, process: Process
) -> None:
    """The state log may ask for it again before the row is removed; a restart then removes the row, and the entry."""
    value = process.entry("a")
    assert value is not None
    process.log['aggregate:item:"a"'] = value
    after = Process(online, process.log)
    after.push()
    after.commit()
    assert online.rows == {"b": 1.0}
    assert sorted(process.log) == ['aggregate:item:"b"']


def test_a_kill_before_the_row_left_leaves_the_state(online: Online, process: Process) -> None:
    after = Process(online, process.log)
    after.push()
    assert online.rows == {"b": 1.0}
    after.commit()
    assert sorted(process.log) == ['aggregate:item:"b"']


def test_a_row_that_left_does_not_come_back_after_a_kill_before_the_commit(online: Online, process: Process) -> None:
    process.push()
    after = Process(online, process.log)
    after.push()
    assert online.rows == {"b": 1.0}


def test_what_decayed_while_redis_was_away_leaves_when_it_is_back(online: Online, process: Process) -> None:
    online.is_away = True
    with pytest.raises(ServiceUnavailableError):
        process.push()
    online.is_away = False
    process.push()
    process.commit()
    assert online.rows == {"b": 1.0}
    assert sorted(process.log) == ['aggregate:item:"b"']


def test_what_comes_back_while_redis_is_away_stays(online: Online, process: Process) -> None:
    online.is_away = True
    with pytest.raises(ServiceUnavailableError):
        process.push()
    online.is_away = False
    process.join("a", LONG_AFTER_MS)
    process.push()
    process.commit()
    assert online.rows == {"a": 1.0, "b": 1.0}
    assert sorted(process.log) == ['aggregate:item:"a"', 'aggregate:item:"b"']
