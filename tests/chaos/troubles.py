"""What goes wrong in a run and when, from one seed: kills with -9, and troubles that last for a time."""

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from random import Random
from typing import NamedTuple

from runtime.redis import connect
from tests.chaos.processes import thaw
from tests.chaos.world import World, kill, start_again

TRAFFIC_SECONDS = 30.0
KILLS = 8
SERVERS = ("redis", "kafka")

_EARLY = 0.2  # of the kills
_SESSION_SECONDS = 6.0  # of a member of a consumer group (stream/kafka/connection.py)
_SERVER_WEIGHT = 0.4
_START_SECONDS = 30.0


class Kill(NamedTuple):
    """A process, or a server, is killed with -9 at a time of the run: the first of `names` that works again then.

    `is_early`: the first of them, also while it is about to start.
    """

    at: float
    names: tuple[str, ...]
    is_early: bool


class PlannedTrouble(NamedTuple):
    """A trouble by its name in TROUBLES, from `at` on for `seconds`; `seed` draws which process it meets."""

    at: float
    name: str
    seconds: float
    seed: int


class Plan(NamedTuple):
    """Times are seconds since the traffic began."""

    kills: list[Kill]
    troubles: list[PlannedTrouble]


class Trouble(NamedTuple):
    """`of` is who suffers it; `during` lasts as long as the trouble does."""

    of: str
    during: Callable[[World, Random], AbstractContextManager[None]]


def plan_of(seed: int, names: Sequence[str], *, has_disk: bool) -> Plan:
    """Kills of these processes and servers, spread over the run; each trouble once, one after the other."""
    random = Random(seed)
    step = TRAFFIC_SECONDS / KILLS
    weights = [_SERVER_WEIGHT if name in SERVERS else 1.0 for name in names]
    kills = []
    for number in range(KILLS):
        order = dict.fromkeys(random.choices(names, weights, k=8 * len(names)))
        kills.append(Kill(step * (number + random.random()), tuple(order), random.random() < _EARLY))
    possible = [name for name in TROUBLES if has_disk or name != DISK_IS_FULL]
    slot = TRAFFIC_SECONDS / len(possible)
    troubles: list[PlannedTrouble] = []
    at = slot * 0.1 * random.random()
    for name in random.sample(possible, len(possible)):
        seconds = _SESSION_SECONDS + 2 if name == STREAM_STANDS_STILL else slot * (0.3 + 0.35 * random.random())
        troubles.append(PlannedTrouble(at, name, seconds, random.randrange(2**32)))
        at += max(slot, seconds + 1)
    return Plan(kills, troubles)


@contextmanager
def _redis_hangs(world: World, _: Random) -> Iterator[None]:
    """Redis takes connections and answers nothing."""
    world.redis.process.send_signal(signal.SIGSTOP)
    yield
    world.redis.process.send_signal(signal.SIGCONT)


@contextmanager
def _redis_is_gone(world: World, _: Random) -> Iterator[None]:
    """Redis is killed, and comes back with its data."""
    kill(world.redis)
    yield
    start_again(world.redis)


@contextmanager
def _redis_is_full(world: World, _: Random) -> Iterator[None]:
    """Redis answers every write with OOM."""
    for limit in ("1mb", "0"):
        world.redis._wait_until_ready(_START_SECONDS)  # it may have been killed a moment ago
        with connect(world.redis.url) as client:
            client.config_set("maxmemory", limit)
        if limit != "0":
            yield


@contextmanager
def _kafka_hangs(world: World, _: Random) -> Iterator[None]:
    """Kafka takes connections and answers nothing."""
    world.kafka.process.send_signal(signal.SIGSTOP)
    yield
    world.kafka.process.send_signal(signal.SIGCONT)


@contextmanager
def _disk_is_full(world: World, _: Random) -> Iterator[None]:
    """The disk of the versions and of the example log takes no more."""
    assert world.disk
    world.disk.fill()
    yield
    world.disk.make_room()


@contextmanager
def _stream_stands_still(world: World, random: Random) -> Iterator[None]:
    """A stream is stopped for longer than its session: the other takes over, and it wakes up as a zombie."""
    frozen = world.processes.freeze(random.choice(world.streams))
    yield
    thaw(frozen)


DISK_IS_FULL, STREAM_STANDS_STILL = "the disk is full", "a stream stands still"
TROUBLES: dict[str, Trouble] = {
    "Redis hangs": Trouble("redis", _redis_hangs),
    "Redis is gone": Trouble("redis", _redis_is_gone),
    "Redis is full (OOM)": Trouble("redis", _redis_is_full),
    "Kafka hangs": Trouble("kafka", _kafka_hangs),
    DISK_IS_FULL: Trouble("disk", _disk_is_full),
    STREAM_STANDS_STILL: Trouble("process", _stream_stands_still),
}


class Outages:
    """When the parts of a world were away."""

    _GRACE_SECONDS = 30.0  # a process that has met an outage may still wait for a time-out, or be about to say so

    def __init__(self, began: float) -> None:
        self._began = began
        self._open: dict[str, float] = {}
        self._ended: list[tuple[str, float, float]] = []

    def begin(self, what: str) -> None:
        """It is away, from now on if it was not yet."""
        self._open.setdefault(what, self._now())

    def end(self, what: str) -> None:
        """It is back."""
        self._ended.append((what, self._open.pop(what), self._now()))

    def open(self) -> list[str]:
        """What is away now."""
        return list(self._open)

    def of(self, what: str) -> list[tuple[float, float]]:
        """When it was away, until now if it still is."""
        open_now = [(self._open[what], self._now())] if what in self._open else []
        return [(begin, end) for name, begin, end in self._ended if name == what] + open_now

    def covers(self, what: str, at: float) -> bool:
        """Whether it was away at that time, or so lately that a process may end of it."""
        return any(begin <= at <= until + self._GRACE_SECONDS for begin, until in self.of(what))

    def _now(self) -> float:
        return time.monotonic() - self._began
