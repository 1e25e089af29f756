"""Where a run takes place: a broker, a Redis, a project, a small disk, and graft's processes on them."""

import http.client
import json
import re
import shutil
import socket
import time
import tomllib
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Self

import prometheus_client  # noqa: F401 - before Feast's import, which else turns every metric into a file

from features.repo import store
from graft.project import FILE_NAME, Project, load_project
from lab.dev.processes import Stage, environment_of
from lab.embedded import EmbeddedKafka, EmbeddedRedis, free_port
from lab.embedded.servers import ApacheKafka
from lab.embedded.services import Services
from runtime.child import start_child
from stream.kafka.topics import ensure_topics
from tests.chaos.processes import Processes
from tests.disks import Disk, NotMountableError, mounted

_DISK = "64m"  # room for three versions and an example log of some 100,000 examples
_START_SECONDS = 120.0
_FIXTURE = Path(__file__).parents[2] / "fixtures/simulated"
_CHANGED = {
    "stream": {"partitions": (PARTITIONS := 4), "idle_seconds": 1, "dedup_seconds": 86_400.0},
    "student": {"micro_batch": 8, "table_rows": 2_048},
    "publish": {"every_seconds": 1, "keep": 3},
}
"""What differs from the fixture, by graft.toml's tables; beside the windows of both tasks."""
WINDOW_SECONDS = 3
SCORER, LEARNER, ARCHIVE, TEACHER = "scorer", "learner", "archive", "teacher"


class LastingRedis(EmbeddedRedis):
    """A Redis that writes each command to its file before it answers: a kill loses nothing."""

    def _argv(self) -> Sequence[str]:
        return [*super()._argv(), "--appendonly", "yes"]


class World:
    """Everything around a run in `folder`; a context manager. Its processes are started by `start`.

    Kafka is the embedded broker, or the Apache Kafka in `kafka_home`. Without root there is no disk of its own, and
    `disk` is None.
    """

    def __init__(self, folder: Path, kafka_home: str | None) -> None:
        self.folder = folder
        self.began = time.monotonic()
        self.kafka: EmbeddedKafka = (
            ApacheKafka(Path(kafka_home), folder / "kafka") if kafka_home else EmbeddedKafka(folder / "kafka")
        )
        self.redis = LastingRedis(folder / "redis")
        self.disk: Disk | None = None
        self.processes = Processes(folder / "logs", self.seconds)
        self.ports: dict[str, int] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(self.redis)
            stack.enter_context(self.kafka)
            with suppress(NotMountableError):
                self.disk = stack.enter_context(mounted(self.folder / "disk", _DISK))
            self.project = _made_project(self.folder / "pair", self.redis.url)
            ensure_topics(self.kafka.servers, self.project.stream, self.project.topics)
            stack.enter_context(self.processes)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def is_apache(self) -> bool:
        """Whether the broker is Apache Kafka, which loses nothing when it is killed."""
        return isinstance(self.kafka, ApacheKafka)

    @property
    def versions(self) -> Path:
        """The registry's folder."""
        return self.folder / "disk" / "versions"

    @property
    def example_log(self) -> Path:
        """The archive's folder."""
        return self.folder / "disk" / "example-log"

    @property
    def journal(self) -> Path:
        """What the learner learns (tests.chaos.learner); not on the disk that gets full."""
        return self.folder / "journal.jsonl"

    @property
    def streams(self) -> list[str]:
        """The names of the stream's processes."""
        return ["stream-a", "stream-b"]

    def seconds(self) -> float:
        """Since this world was made."""
        return time.monotonic() - self.began

    def start(self, *names: str) -> None:
        """Start these processes, or all: the streams, the teacher, the learner, the archive and the scorer."""
        for name in names or (*self.streams, TEACHER, LEARNER, ARCHIVE, SCORER):
            self.ports[name] = free_port()
            if name == LEARNER:
                self.processes.start(self._stage(name, (str(self.journal),)), module="tests.chaos.learner")
            else:
                self.processes.start(self._stage(name, self._arguments(name)))

    def has_kafka(self) -> bool:
        """Whether Kafka takes connections."""
        return takes_connections(self.kafka)

    def await_that(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Whether the condition holds within `seconds`; the processes are kept running meanwhile."""
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                return False
            self.processes.tick()
            time.sleep(0.1)
        return True

    def await_ready(self) -> bool:
        """Whether all processes become ready."""
        return self.await_that(lambda: all(map(self.is_ready, self.ports)), _START_SECONDS)

    def is_ready(self, name: str) -> bool:
        """Whether /readyz of a process answers 200."""
        connection = http.client.HTTPConnection("127.0.0.1", self.ports[name], timeout=0.5)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == http.client.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _arguments(self, name: str) -> tuple[str, ...]:
        return {
            TEACHER: ("teacher", "run"),
            ARCHIVE: ("stream", "archive", str(self.example_log), "--every-seconds", "1"),
            SCORER: ("student", "serve", "--port", str(self.ports[name])),
        }.get(name, ("stream", "run"))

    def _stage(self, name: str, arguments: tuple[str, ...]) -> Stage:
        services = Services(self.kafka.servers, self.redis.url, embedded_kafka=not self.is_apache)
        environment = environment_of(services, self.project.folder, self.versions)
        own = {"GRAFT_INSTANCE": name}
        if name != SCORER:
            own["GRAFT_METRICS_PORT"] = str(self.ports[name])
        return Stage(name, arguments, {**environment, **own})


def kill(server: EmbeddedKafka | EmbeddedRedis) -> None:
    """End a server with -9, also one that stands still."""
    server.process.kill()
    server.process.wait()


def start_again(server: EmbeddedKafka | EmbeddedRedis) -> None:
    """Start an ended server on its port and data, and do not wait until it answers: its clients do."""
    with server._log.open("ab") as log:
        server.process = start_child(server._argv(), stdout=log, stderr=log)


def takes_connections(server: EmbeddedKafka | EmbeddedRedis) -> bool:
    """Whether a server takes connections."""
    with socket.socket() as client:
        client.settimeout(0.2)
        return client.connect_ex(("127.0.0.1", server.port)) == 0


def _made_project(folder: Path, redis_url: str) -> Project:
    """The pair of fixtures/simulated with the pace and the topics of this run; its features are registered."""
    shutil.copytree(_FIXTURE, folder, ignore=shutil.ignore_patterns("__pycache__", "*.db", "feature_spec.json"))
    path = folder / FILE_NAME
    text = path.read_text(encoding="utf-8")
    assert "window_seconds = 10" in text, f"{_FIXTURE / FILE_NAME} has other windows"
    text = text.replace("window_seconds = 10", f"window_seconds = {WINDOW_SECONDS}")
    for table, values in _CHANGED.items():
        merged = {**tomllib.loads(text).get(table, {}), **values}
        section = re.compile(rf"^\[{re.escape(table)}\][^\n]*\n(?:(?!\[)[^\n]*\n?)*", re.MULTILINE)
        lines = "".join(f"{key} = {json.dumps(value)}\n" for key, value in merged.items())
        text = f"{section.sub('', text).rstrip()}\n\n[{table}]\n{lines}"
    path.write_text(text, encoding="utf-8")
    project = load_project(folder)
    store.apply(project.repo, redis_url, project.features)
    return project
