"""The processes of a session, as compose runs them: each a graft command with its own environment."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from graft.settings import PREFIX, Settings
from lab.dev.processes import Stage
from lab.embedded.servers import free_port
from lab.embedded.services import Services

STREAM, TEACHER, LEARNER, SCORER, REPLAY = "stream", "teacher", "learner", "scorer", "replay"

_TRANSPORTS = ["GRAFT_KAFKA_SASL_PASSWORD_FILE"] + [
    f"{PREFIX}{name.upper()}" for name in Settings.model_fields if re.match("kafka_|redis_ssl_", name)
]
"""The settings of how Kafka and Redis are reached, beside their addresses."""


class Ports(NamedTuple):
    """Where each process serves its metrics; the scorer's is its HTTP port. They stay over a restart."""

    stream: int
    teacher: int
    learner: int
    scorer: int


def choose_ports(scorer: int | None = None) -> Ports:
    """Free loopback ports; the scorer's may be given."""
    ports: list[int] = []
    while len(ports) < len(Ports._fields):
        if (port := free_port()) not in (*ports, scorer):
            ports.append(port)
    return Ports(*ports)._replace(scorer=scorer or ports[-1])


def environment_of(services: Services, project: Path, versions: Path) -> dict[str, str]:
    """The settings that all processes share. One thread each: there are more processes than cores."""
    settings = {
        "GRAFT_PROJECT": str(project),
        "GRAFT_KAFKA": services.kafka,
        "GRAFT_REDIS_URL": services.redis_url,
        "GRAFT_VERSIONS": str(versions),
    }
    return {
        **settings,
        **{f"{name}_FILE": "" for name in settings},  # the user's own would contradict them
        **dict.fromkeys((name for name in _TRANSPORTS if name.startswith("GRAFT_REDIS")), ""),  # they are in the URL
        **(dict.fromkeys(_TRANSPORTS, "") if services.embedded_kafka else {}),
        "GRAFT_HTTP_TOKENS_FILE": "",  # the client of this process has none; the scorer is on loopback
        **dict.fromkeys(("GRAFT_METRICS_PORT", "GRAFT_ADMIN_PORT"), ""),  # the scorer's metrics are on its own port
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }


def path_stages(environment: dict[str, str], ports: Ports, *, has_teacher: bool) -> list[Stage]:
    """The processes that run until they are stopped, in the order in which they are stopped."""
    scorer = ("student", "serve", "--host", "127.0.0.1", "--port", str(ports.scorer), "--workers", "1")
    stages = [
        _stage(STREAM, ("stream", "run"), environment, ports.stream),
        _stage(TEACHER, ("teacher", "run"), environment, ports.teacher),
        _stage(LEARNER, ("student", "train"), environment, ports.learner),
        Stage(SCORER, scorer, environment),
    ]
    return [stage for stage in stages if has_teacher or stage.name != TEACHER]


def replay_stage(environment: dict[str, str], events: Path, pace: Sequence[str], max_lag: int) -> Stage:
    """The process that sends the events and ends. After a kill it goes on where it was."""
    arguments = ("replay", str(events), "--resume", "--max-lag", str(max_lag), *pace)
    return Stage(REPLAY, arguments, environment, ends=True)


def _stage(name: str, arguments: tuple[str, ...], environment: dict[str, str], metrics_port: int) -> Stage:
    return Stage(name, arguments, {**environment, "GRAFT_METRICS_PORT": str(metrics_port)})
