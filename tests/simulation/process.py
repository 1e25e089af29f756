"""One start of a stream process in the simulation: its clocks, its faults, and what its clients may do."""

from collections import Counter
from collections.abc import Callable, Mapping
from random import Random
from types import TracebackType
from typing import Literal, NamedTuple, Protocol

from kafka.errors import KafkaTimeoutError

from runtime.errors import ServiceUnavailableError
from tests.simulation.broker import START_MS, Broker
from tests.simulation.timeline import Killed, Participant, Timeline

RESTART_MS = 100.0


class Heartbeats(Protocol):
    """A client that a group believes to be alive."""

    def fall_silent(self) -> None:
        """Send no heartbeats any more."""
        ...


class Fault(NamedTuple):
    """What goes wrong at the `nth` call of one kind that an instance makes, over all its starts.

    kill: the process ends, and starts again after `ms`. freeze: it stands still for `ms`; with `has_twin` another one
    of its name is started meanwhile. fail: the call raises. `when` is before or after the call's own effect: a commit
    that fails after it is one whose outcome is unknown.
    """

    kind: Literal["kill", "freeze", "fail"]
    instance: str
    call: str
    nth: int
    when: Literal["before", "after"]
    ms: float = 0.0
    has_twin: bool = False


class Instance:
    """What all starts of one instance share."""

    def __init__(self, name: str, faults: Mapping[tuple[str, int], Fault]) -> None:
        self.name = name
        self.faults = faults
        self.calls: Counter[str] = Counter()
        self.wall_shift_ms = 0.0
        self.processes: list[Process] = []
        self.start: Callable[[], None] = lambda: None
        """Starts one more process of it."""
        self.restart_ms = RESTART_MS
        """How long after its last process's end the next one is started."""
        self.is_retired = False


class Process:
    """One start of an instance. Every effect on the world outside goes through `call`."""

    def __init__(
        self, timeline: Timeline, broker: Broker, random: Random, instance: Instance, faults_end_ms: float
    ) -> None:
        self.timeline, self.broker, self.random, self.instance = timeline, broker, random, instance
        self.faults_end_ms = faults_end_ms
        self.is_silent = self.is_stopping = False
        self.members: list[Heartbeats] = []
        self.participant: Participant | None = None
        self._born_ms = timeline.now_ms - random.random() * 1e7

    def call(self, kind: str) -> "Call":
        """The block that has the effect of one call."""
        return Call(self, kind)

    def monotonic(self) -> float:
        """Seconds by a clock that begins anew with each process."""
        return (self.timeline.now_ms - self._born_ms) / 1000

    def time_ns(self) -> int:
        """Nanoseconds since 1970 by the machine's clock, which jumps."""
        return int((START_MS + self.timeline.now_ms + self.instance.wall_shift_ms) * 1e6)

    def fall_silent(self) -> None:
        """Send no heartbeats any more."""
        self.is_silent = True
        for member in self.members:
            member.fall_silent()

    def freeze(self, duration_ms: float) -> None:
        """Stand still, without heartbeats."""
        self.fall_silent()
        self.timeline.sleep(duration_ms)
        self.is_silent = False


class Call:
    """One call: time passes, and the fault that was planned for it strikes before or after its effect."""

    def __init__(self, process: Process, kind: str) -> None:
        self._process = process
        instance = process.instance
        instance.calls[kind] += 1
        fault = instance.faults.get((kind, instance.calls[kind]))
        self._fault = fault if fault and process.timeline.now_ms < process.faults_end_ms else None

    def __enter__(self) -> None:
        self._process.timeline.sleep(self._process.random.random() * 4)
        if self._fault and self._fault.when == "before":
            self._strike(self._fault)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if error is None and self._fault and self._fault.when == "after":
            self._strike(self._fault)

    def _strike(self, fault: Fault) -> None:
        process = self._process
        if fault.kind == "fail":
            away = ServiceUnavailableError if fault.call in ("read", "push") else KafkaTimeoutError
            raise away(f"simulated: {fault}")
        if fault.kind == "freeze":
            if fault.has_twin:
                process.instance.start()
            process.freeze(fault.ms)
            return
        process.instance.restart_ms = fault.ms
        process.timeline.running.is_killed = True
        raise Killed


class Stop:
    """The stop signal of a simulated process."""

    def __init__(self, process: Process) -> None:
        self._process = process

    def is_set(self) -> bool:
        """Whether a stop was asked for."""
        return self._process.is_stopping

    def wait(self, seconds: float) -> bool:
        """Sleep; whether a stop was asked for."""
        self._process.timeline.sleep(seconds * 1000)
        return self._process.is_stopping
