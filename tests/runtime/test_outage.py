import logging
import random

import pytest

from runtime.errors import ServiceUnavailableError
from runtime.health import HEALTH
from runtime.outage import AWAY, Outage, StoppedError, wait_for
from runtime.telemetry import StopSignal

_REFUSED = ServiceUnavailableError("Redis at redis://localhost:6379 refused the connection")


def _away(service: str) -> float:
    return AWAY.labels(service)._value.get()


class _Stop(StopSignal):
    """Notes the waits in place of waiting; set after `most` of them."""

    def __init__(self, most: int = 100) -> None:
        super().__init__()
        self.waits: list[float] = []
        self._most = most

    def wait(self, seconds: float) -> bool:
        self.waits.append(seconds)
        if len(self.waits) >= self._most:
            self.set()
        return self.is_set()


class _Service:
    """Refuses the first `refusals` calls."""

    def __init__(self, refusals: int) -> None:
        self._refusals = refusals

    def __call__(self) -> str:
        self._refusals -= 1
        if self._refusals >= 0:
            raise _REFUSED
        return "answer"


def test_the_bound_of_the_wait_doubles_from_a_tenth_of_a_second_to_one() -> None:
    shortest, longest = Outage("a", "", fraction=lambda: 0.0), Outage("a", "", fraction=lambda: 1.0)
    assert [longest.failed(_REFUSED) for _ in range(6)] == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.0, 1.0])
    assert [shortest.failed(_REFUSED) for _ in range(6)] == pytest.approx([0.05, 0.1, 0.2, 0.4, 0.5, 0.5])


def test_after_its_end_the_next_outage_begins_with_the_shortest_wait() -> None:
    outage = Outage("b", "", fraction=lambda: 1.0)
    for _ in range(5):
        outage.failed(_REFUSED)
    outage.ended()
    assert outage.failed(_REFUSED) == pytest.approx(0.1)


def test_an_outage_is_one_warning_and_one_line_when_it_is_over(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "runtime.outage")
    outage = Outage("redis", "features wait")
    outage.ended()
    for _ in range(3):
        outage.failed(_REFUSED)
    outage.ended()
    outage.ended()
    assert [(r.levelname, r.message) for r in caplog.records] == [
        ("WARNING", "Redis at redis://localhost:6379 refused the connection; features wait"),
        ("INFO", "redis is back after seconds=0.0"),
    ]


def test_the_gauge_of_the_service_is_1_during_an_outage_alone() -> None:
    outage = Outage("c", "")
    assert _away("c") == 0
    outage.failed(_REFUSED)
    assert _away("c") == 1
    outage.ended()
    assert _away("c") == 0


def test_a_caller_that_gives_up_leaves_no_outage_behind(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "runtime.outage")
    outage = Outage("h", "", fraction=lambda: 1.0)
    outage.failed(_REFUSED)
    outage.failed(_REFUSED)
    outage.forget()
    assert _away("h") == 0
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert outage.failed(_REFUSED) == pytest.approx(0.1)


def test_the_process_is_not_ready_during_an_outage_that_stops_its_work() -> None:
    waits, goes_on = Outage("i", "examples wait"), Outage("i", "no matter", stops_work=False)
    HEALTH.begin("test")
    HEALTH.round_ended("test")
    waits.failed(_REFUSED)
    goes_on.failed(_REFUSED)
    assert f"{_REFUSED}; examples wait" in HEALTH.reasons()
    assert f"{_REFUSED}; no matter" not in HEALTH.reasons()
    waits.ended()
    assert f"{_REFUSED}; examples wait" not in HEALTH.reasons()
    goes_on.forget()


def test_wait_for_gives_the_first_answer_and_waits_once_per_refusal() -> None:
    stop = _Stop()
    assert wait_for(_Service(refusals=3), Outage("d", "", fraction=lambda: 1.0), stop) == "answer"
    assert stop.waits == pytest.approx([0.1, 0.2, 0.4])
    assert _away("d") == 0


def test_a_stop_ends_the_waiting_for_a_service() -> None:
    stop = _Stop(most=2)
    with pytest.raises(StoppedError):
        wait_for(_Service(refusals=1_000), Outage("e", ""), stop)
    assert len(stop.waits) == 2


def test_another_error_than_the_service_being_away_is_not_waited_for() -> None:
    def broken() -> None:
        raise ValueError("ours")

    with pytest.raises(ValueError, match="ours"):
        wait_for(broken, Outage("f", ""), _Stop())


def test_the_jitter_takes_nothing_from_the_random_numbers_of_others() -> None:
    random.seed(7)
    expected = random.random()
    random.seed(7)
    Outage("g", "").failed(_REFUSED)
    assert random.random() == expected
