"""When a study's impressions are scored: as they come, before what closes after that is learnt."""

from typing import Any

from lab.study.cell import Requests
from stream.examples import ExampleRecord
from tests.lab.study.conftest import Pair


def records(pair: Pair, *seconds: float) -> list[Any]:
    example = pair.log.records[0].example
    times = [example.model_copy(update={"event_time_ms": int(1000 * second)}) for second in seconds]
    return [ExampleRecord(0, n, example) for n, example in enumerate(times)]


def test_an_impression_is_scored_before_what_closes_after_it_is_learnt(pair: Pair) -> None:
    """The window is 10 s: at the step that learns the first two, closed at 12 s, the first four have come."""
    log = records(pair, 0, 2, 5, 11, 12, 40)
    requests = Requests(log, 10)
    assert requests.before(log[:2]) == slice(0, 4)
    assert requests.before(log[2:4]) == slice(4, 5)
    assert requests.before(log[4:5]) == slice(5, 5)
    assert requests.rest() == slice(5, 6)


def test_every_impression_is_scored_once(pair: Pair) -> None:
    log = records(pair, *range(50))
    requests = Requests(log, 7)
    given = [requests.before(log[n : n + 4]) for n in range(0, 50, 4)] + [requests.rest()]
    assert [n for rows in given for n in range(50)[rows]] == list(range(50))
