"""A real Apache Kafka as the embedded server: the second choice beside noida-db, for who has its folder and Java.

EMBEDDED_KAFKA_HOME names the folder of an unpacked release, 4.0 or newer. Its libs/ are read; nothing in it changes.
"""

import base64
import os
import shlex
import shutil
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

from lab.embedded.servers import EmbeddedKafka
from runtime.errors import ConfigurationError, GraftError

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
