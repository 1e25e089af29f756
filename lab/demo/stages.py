"""The processes of the path, as compose runs them: each a graft command with its own environment."""

from pathlib import Path
from typing import NamedTuple

from lab.demo.plan import MAX_LAG, Plan
from lab.demo.processes import Stage
from lab.demo.services import Services
from lab.embedded import free_port
from lab.pairs.project_folder import EVENTS

STREAM, TEACHER, LEARNER, SCORER, REPLAY = "stream", "teacher", "learner", "scorer", "replay"


class Ports(NamedTuple):
    """Where each process serves its metrics; the scorer's is its HTTP port. They stay over a restart."""

    stream: int
    teacher: int
    learner: int
    scorer: int


def choose_ports() -> Ports:
    """Free loopback ports."""
    ports: list[int] = []
    while len(ports) < len(Ports._fields):
        if (port := free_port()) not in ports:
            ports.append(port)
    return Ports(*ports)


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
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }


def path_stages(environment: dict[str, str], ports: Ports) -> list[Stage]:
    """The four processes that run until they are stopped, in the order in which they are stopped."""
    return [
        _stage(STREAM, ("stream", "run"), environment, ports.stream),
        _stage(TEACHER, ("teacher", "run"), environment, ports.teacher),
        _stage(LEARNER, ("student", "train"), environment, ports.learner),
        Stage(SCORER, ("student", "serve", "--port", str(ports.scorer)), environment),
    ]


def replay_stage(environment: dict[str, str], project: Path, plan: Plan) -> Stage:
    """The process that sends the events and ends. After a kill it begins again; the stream drops duplicates."""
    pace = ("--rate", f"{plan.events_per_second:g}", "--max-lag", str(MAX_LAG))
    return Stage(REPLAY, ("replay", str(project / EVENTS), *pace), environment, ends=True)


def _stage(name: str, arguments: tuple[str, ...], environment: dict[str, str], metrics_port: int) -> Stage:
    return Stage(name, arguments, {**environment, "GRAFT_METRICS_PORT": str(metrics_port)})
