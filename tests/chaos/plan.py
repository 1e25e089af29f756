"""What goes wrong in a run and when, from one seed."""

from collections.abc import Sequence
from random import Random
from typing import NamedTuple

from tests.chaos.troubles import DISK_IS_FULL, KAFKA_IS_GONE, STREAM_STANDS_STILL, TROUBLES
from tests.chaos.world import Shape

_LONGEST_AWAY_SECONDS = 60.0
_SESSION_SECONDS = 6.0  # of a member of a consumer group (stream/kafka/connection.py)
_SLOT_SECONDS = (5.0, 100.0)  # of one trouble and what follows it, at least and at most
_SERVER_WEIGHT = 0.4
_EARLY = 0.2  # of the kills
_SECONDS_A_KILL = 9.0  # two busy cores restart a process in about that time

SERVERS = ("redis", "kafka")


class Options(NamedTuple):
    """What the command line asks for."""

    seconds: float
    seed: int
    kills: int | None = None
    per_second: float = 10.0
    """Impressions."""


class Kill(NamedTuple):
    """A process, or a server, is killed with -9 at a time of the run: the first of `names` that works again then.

    `is_early`: the first of them, also while it is about to start.
    """

    at: float
    names: tuple[str, ...]
    is_early: bool


class PlannedTrouble(NamedTuple):
    """A trouble by its name in TROUBLES, from `at` on for `seconds`; `seed` draws what it is the matter with."""

    at: float
    name: str
    seconds: float
    seed: int


class Plan(NamedTuple):
    """Times are seconds since the traffic began."""

    seconds: float
    kills: list[Kill]
    troubles: list[PlannedTrouble]


def shape_of(options: Options) -> Shape:
    """Short windows in a short run."""
    if options.seconds < 60:
        return Shape(partitions=4, streams=2, window_seconds=3, idle_seconds=1, publish_seconds=1)
    return Shape(partitions=6, streams=2, window_seconds=10, idle_seconds=5, publish_seconds=2)


def plan_of(options: Options, killable: Sequence[str], troubles: Sequence[str]) -> Plan:
    """Kills spread over the run; troubles one after the other, each kind before any comes again."""
    random = Random(options.seed)
    count = round(options.seconds / _SECONDS_A_KILL) if options.kills is None else options.kills
    step = options.seconds / max(1, count)
    kills = [_kill(random, step * (number + random.random()), killable) for number in range(count)]
    shortest, longest = _SLOT_SECONDS
    slot = min(max(options.seconds / len(TROUBLES), shortest), longest)
    planned: list[PlannedTrouble] = []
    left: list[str] = []
    at = slot * 0.1 * random.random()
    while at + slot / 2 < options.seconds:
        left = left or random.sample(troubles, len(troubles))
        name = left.pop()
        seconds = min(_LONGEST_AWAY_SECONDS, slot * (0.3 + 0.35 * random.random()))
        if name == STREAM_STANDS_STILL:
            seconds = max(seconds, _SESSION_SECONDS + 2)
        planned.append(PlannedTrouble(at, name, seconds, random.randrange(2**32)))
        at += max(slot, seconds + 1)
    return Plan(options.seconds, kills, planned)


def _kill(random: Random, at: float, killable: Sequence[str]) -> Kill:
    """Servers are less likely to be the first: with Kafka away, nobody else has much to do."""
    weights = [_SERVER_WEIGHT if name in SERVERS else 1.0 for name in killable]
    drawn = dict.fromkeys(random.choices(killable, weights, k=8 * len(killable)))
    return Kill(at, tuple(drawn), random.random() < _EARLY)


def killable_names(names: Sequence[str], *, is_apache: bool) -> list[str]:
    """The processes, and the servers that lose nothing when they are killed."""
    return [*names, *(SERVERS if is_apache else SERVERS[:1])]


def possible_troubles(*, is_apache: bool, has_disk: bool) -> list[str]:
    """The names of TROUBLES; without a disk of its own, none can be full."""
    impossible = {KAFKA_IS_GONE: not is_apache, DISK_IS_FULL: not has_disk}
    return [name for name in TROUBLES if not impossible.get(name)]
