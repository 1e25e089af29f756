"""What goes wrong for a time: a service that is away or refuses, a full disk, a process that stands still."""

import signal
import subprocess
import time
from collections.abc import Callable
from random import Random

from runtime.redis import Client, connect
from tests.chaos.processes import thaw
from tests.chaos.world import World, kill, start_again

_START_SECONDS = 30.0
_SAVE_SECONDS = 5.0
_SPOILT = 5  # keys that get another type
_BESIDE = "chaos:beside:"


class Trouble:
    """Begins and ends once. `of` is what it is the matter with; one thing has one trouble at a time."""

    of = ""

    def __init__(self, world: World, random: Random) -> None:
        self._world, self._random = world, random

    def begin(self) -> None:
        """Make it so."""
        raise NotImplementedError

    def end(self) -> None:
        """Make it good."""
        raise NotImplementedError

    def _redis(self) -> Client:
        """A connection to Redis, once it answers: it may have been killed a moment ago."""
        self._world.redis._wait_until_ready(_START_SECONDS)
        return connect(self._world.redis.url)


class RedisHangs(Trouble):
    """Redis takes connections and answers nothing."""

    of = "redis"

    def begin(self) -> None:
        self._world.redis.process.send_signal(signal.SIGSTOP)

    def end(self) -> None:
        self._world.redis.process.send_signal(signal.SIGCONT)


class RedisIsGone(Trouble):
    """Redis is killed, and comes back with its data."""

    of = "redis"

    def begin(self) -> None:
        kill(self._world.redis)

    def end(self) -> None:
        start_again(self._world.redis)


class RedisIsFull(Trouble):
    """Redis answers every write with OOM."""

    of = "redis"

    def begin(self) -> None:
        with self._redis() as client:
            client.config_set("maxmemory", "1mb")

    def end(self) -> None:
        with self._redis() as client:
            client.config_set("maxmemory", "0")


class RedisCannotSave(Trouble):
    """Redis answers every write with MISCONF: a folder stands where its dump should."""

    of = "redis"

    def begin(self) -> None:
        (self._world.redis.folder / "dump.rdb").mkdir()
        with self._redis() as client:
            client.config_set("save", "86400 1")
            client.bgsave()
            deadline = time.monotonic() + _SAVE_SECONDS
            while client.info("persistence")["rdb_last_bgsave_status"] == "ok":
                assert time.monotonic() < deadline, "Redis saved its data into a folder"
                time.sleep(0.05)

    def end(self) -> None:
        (self._world.redis.folder / "dump.rdb").rmdir()
        with self._redis() as client:
            client.config_set("save", "")


class KeysOfAnotherType(Trouble):
    """Some keys hold a text, and each command of graft on them is answered with WRONGTYPE. Their values come back."""

    of = "redis"

    def begin(self) -> None:
        with self._redis() as client:
            hashes = sorted(client.scan_iter(_type="HASH", count=1_000))
            for key in self._random.sample(hashes, min(_SPOILT, len(hashes))):
                client.rename(key, _BESIDE.encode() + key)
                client.set(key, "no hash")
                self._world.spoilt.add(key)

    def end(self) -> None:
        with self._redis() as client:
            for beside in list(client.scan_iter(f"{_BESIDE}*", count=1_000)):
                key = beside.removeprefix(_BESIDE.encode())
                if client.type(key) == b"string":
                    client.rename(beside, key)
                else:  # graft has made room for a hash of its own
                    client.delete(beside)


class KafkaHangs(Trouble):
    """Kafka takes connections and answers nothing."""

    of = "kafka"

    def begin(self) -> None:
        self._world.kafka.process.send_signal(signal.SIGSTOP)

    def end(self) -> None:
        self._world.kafka.process.send_signal(signal.SIGCONT)


class KafkaIsGone(Trouble):
    """Apache Kafka is killed, and comes back with its data. The embedded broker would lose what it was given last."""

    of = "kafka"

    def begin(self) -> None:
        assert self._world.is_apache
        kill(self._world.kafka)

    def end(self) -> None:
        start_again(self._world.kafka)


class DiskIsFull(Trouble):
    """The disk of the versions and of the example log takes no more."""

    of = "disk"

    def begin(self) -> None:
        assert self._world.disk
        self._world.disk.fill()

    def end(self) -> None:
        assert self._world.disk
        self._world.disk.make_room()


class ProcessStandsStill(Trouble):
    """A process is stopped where it stands: to the others it is dead, until it goes on."""

    of = "process"
    _frozen: subprocess.Popen[bytes] | None = None

    def begin(self) -> None:
        self._frozen = self._world.processes.freeze(self._random.choice(self._names()))

    def end(self) -> None:
        thaw(self._frozen)

    def _names(self) -> tuple[str, ...]:
        return self._world.processes.names


class StreamStandsStill(ProcessStandsStill):
    """One of the streams is stopped for longer than its session with the group."""

    def _names(self) -> tuple[str, ...]:
        return tuple(self._world.streams)


DISK_IS_FULL, KAFKA_IS_GONE = "the disk is full", "Kafka is gone"
STREAM_STANDS_STILL = "a stream stands still"
TROUBLES: dict[str, Callable[[World, Random], Trouble]] = {
    "Redis hangs": RedisHangs,
    KAFKA_IS_GONE: KafkaIsGone,
    STREAM_STANDS_STILL: StreamStandsStill,
    "Redis is full (OOM)": RedisIsFull,
    DISK_IS_FULL: DiskIsFull,
    "keys of another type (WRONGTYPE)": KeysOfAnotherType,
    "Redis is gone": RedisIsGone,
    "Kafka hangs": KafkaHangs,
    "Redis cannot save (MISCONF)": RedisCannotSave,
    "a process stands still": ProcessStandsStill,
}
