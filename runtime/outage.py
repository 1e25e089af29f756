"""The one policy for a service that is away: how long to wait between tries, and what the operator sees of it.

An outage is one warning when it begins, one line when it is over, and in between ``graft_service_away{service}`` and,
where the work waits, a process that is not ready.
"""

import logging
import random
import time
from collections.abc import Callable
from typing import TypeVar

from prometheus_client import Gauge

from runtime.errors import ServiceUnavailableError
from runtime.health import HEALTH
from runtime.telemetry import StopSignal

AWAY = Gauge(
    "graft_service_away",
    "1 while this process waits for a service that does not answer, else 0",
    ["service"],
    multiprocess_mode="livemax",
)

_log = logging.getLogger(__name__)

_FIRST_SECONDS = 0.1
_LONGEST_SECONDS = 1.0  # how late at most a process sees that the service is back
_LONGEST_ASKED_SECONDS = 60.0  # a service that asks for more is asked again by then
_RANDOM = random.Random()  # noqa: S311 - its own generator: a learner's seeded numbers do not depend on outages

_T = TypeVar("_T")


class StoppedError(Exception):
    """A stop was asked for while a service was waited for."""


class Outage:
    """Records whether a service answers one caller, who calls `failed` or `ended` after every try.

    `service` is the metric's label, such as kafka. `consequence` ends the warning: what happens until the service is
    back. `stops_work` is False where the caller does its work without the service meanwhile: the process stays ready.
    `fraction` gives random numbers in [0, 1) for the jitter.
    """

    def __init__(
        self,
        service: str,
        consequence: str,
        fraction: Callable[[], float] = _RANDOM.random,
        *,
        stops_work: bool = True,
    ) -> None:
        self._service = service
        self._consequence = consequence
        self._stops_work = stops_work
        self._fraction = fraction
        self._gauge = AWAY.labels(service)
        self._since: float | None = None
        self._bound_seconds = _FIRST_SECONDS

    def failed(self, error: Exception) -> float:
        """A try failed with `error`; the seconds to wait before the next one.

        They lie between half of a bound and the bound, which doubles from try to try, from 0.1 to 1 s. The spread keeps
        processes that lost the same service from coming back all at once (Brooker 2015, "equal jitter"). A time that
        the service itself asked for comes before them, up to 60 s.
        """
        if self._since is None:
            self._since = time.monotonic()
            _log.warning("%s; %s", error, self._consequence)
        else:
            _log.debug("%s is still away: %s", self._service, error)
        self._gauge.set(1)
        if self._stops_work:
            HEALTH.hold(self, f"{error}; {self._consequence}")
        seconds = self._bound_seconds * (1 + self._fraction()) / 2
        self._bound_seconds = min(2 * self._bound_seconds, _LONGEST_SECONDS)
        asked = error.retry_after_seconds if isinstance(error, ServiceUnavailableError) else 0.0
        return min(asked, _LONGEST_ASKED_SECONDS) + seconds

    def ended(self) -> None:
        """A try succeeded; does nothing unless one failed before."""
        if self._since is None:
            return
        _log.info("%s is back after seconds=%.1f", self._service, time.monotonic() - self._since)
        self.forget()

    def forget(self) -> None:
        """Nobody tries any more: the caller gives the service up, whether it is away or not."""
        if self._since is not None:
            self._gauge.set(0)
        HEALTH.release(self)
        self._since = None
        self._bound_seconds = _FIRST_SECONDS


def wait_for(attempt: Callable[[], _T], outage: Outage, stop: StopSignal) -> _T:
    """The result of the first `attempt` that does not raise ServiceUnavailableError; StoppedError when a stop comes."""
    while True:
        try:
            result = attempt()
        except ServiceUnavailableError as error:
            if stop.wait(outage.failed(error)):
                raise StoppedError from error
        else:
            outage.ended()
            return result
