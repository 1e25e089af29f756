"""Runs the demo from its first command to its report; `run_demo` has the order."""

import json
import re
import time
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from graft.progress import progress
from graft.project import FILE_NAME, Project, load_project
from lab.demo.baselines import Compared
from lab.demo.data import Data
from lab.demo.events import read_events
from lab.demo.outcome import Outcome
from lab.demo.plan import LIMITS, Plan
from lab.demo.report import Findings, write_report
from lab.demo.streaming import Streaming, stream_events
from lab.demo.summary import summary_of
from lab.dev.preparation import FEATURES, Command, Runner, first_version
from lab.dev.services import Services, make_topics, running_services, used_topics
from lab.dev.stages import environment_of
from lab.pairs.project_folder import EVENTS
from lab.study.learner_log import FILE
from runtime.errors import GraftError
from student.evaluate.history import read_history
from student.versions.registry import Registry

Scalar = str | int | float | bool


def with_values(text: str, table: str, values: Mapping[str, Scalar]) -> str:
    """`text` with `values` in its top-level `[table]`, which moves to the end; its other keys must be scalars too."""
    merged = {**tomllib.loads(text).get(table, {}), **values}
    section = re.compile(rf"^\[{re.escape(table)}\][^\n]*\n(?:(?!\[)[^\n]*\n?)*", re.MULTILINE)
    lines = "".join(f"{key} = {json.dumps(value)}\n" for key, value in merged.items())
    return f"{section.sub('', text).rstrip()}\n\n[{table}]\n{lines}"


def make_pair(data: Data, plan: Plan) -> list[Command]:
    """The commands that write the project folder ``pair`` and train its teacher, run in its parent folder."""
    limit = ("--events", str(plan.impressions)) if plan.impressions else ()
    own = ("--movielens", str(data.own_copy)) if data.own_copy else ()
    return [
        Command(("pair", "make", data.name, "pair", *own, *limit), shows_progress=True),
        Command(("pair", "train-teacher", "pair"), shows_progress=True),
    ]


def set_pace(folder: Path, plan: Plan) -> None:
    """Write the demo's own pace into the project file: a short run needs more frequent versions."""
    path = folder / FILE_NAME
    text = path.read_text(encoding="utf-8")
    pace: dict[str, dict[str, Scalar]] = {
        "publish": {"every_seconds": plan.publish_seconds},
        "stream": {"idle_seconds": plan.idle_seconds},
    }
    for table, values in pace.items():
        text = with_values(text, table, values)
    path.write_text(text, encoding="utf-8")


class Folders(NamedTuple):
    """Where a demo keeps what it makes, all of it in `run`, and where its report goes."""

    run: Path
    report: Path

    @property
    def project(self) -> Path:
        """The project folder."""
        return self.run / "pair"

    @property
    def versions(self) -> Path:
        """The registry of students."""
        return self.run / "versions"

    @property
    def baselines(self) -> Path:
        """What the baselines have learnt."""
        return self.run / "baselines"

    @property
    def logs(self) -> Path:
        """The logs of the processes."""
        return self.run / "logs"


class Timings:
    """How long each phase took, in seconds, and the whole up to now."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self.phases: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time the block."""
        began = time.monotonic()
        yield
        self.phases[name] = time.monotonic() - began

    @property
    def total(self) -> float:
        """Seconds since the demo began."""
        return time.monotonic() - self._began


def run_demo(plan: Plan, data: Data, folders: Folders, console: Console, command: str) -> Findings:
    """Prepare, stream, stop, report. GraftError when there can be no report."""
    timings = Timings()
    with running_services() as services:
        environment = environment_of(services, folders.project, folders.versions)
        project = _prepare(plan, data, folders, environment, console, timings)
        make_topics(services, project, LIMITS)
        _refuse_used(services, project)
        with progress("events") as advance:
            events = read_events(folders.project / EVENTS, advance)
        with timings.phase("stream"):
            streaming = Streaming(plan, project, events, services, environment, folders.versions, folders.logs)
            outcome = stream_events(streaming, console)
    compared = _compared(project, outcome, folders.baselines, console, timings)
    findings = _findings(project, data, Registry(folders.versions), outcome, compared, timings)
    index = write_report(folders.report, findings, command)
    console.print(f"report: {index}", highlight=False, markup=False, soft_wrap=True)
    return findings


def _prepare(
    plan: Plan, data: Data, folders: Folders, environment: dict[str, str], console: Console, timings: Timings
) -> Project:
    """Write the project folder, train its teacher, fill the features."""
    folders.logs.mkdir(parents=True, exist_ok=True)
    log = folders.logs / "preparation.log"
    make, train_teacher = make_pair(data, plan)
    runner = Runner(console, folders.run, {}, log)
    with timings.phase("data"):
        runner.run(make)
        set_pace(folders.project, plan)
    with timings.phase("teacher"):
        runner.run(train_teacher)
    project, runner = load_project(folders.project), runner._replace(environment=environment)
    with timings.phase("features"):
        for command in (*FEATURES, *first_version(project)):
            runner.run(command)
    return project


def _refuse_used(services: Services, project: Project) -> None:
    """GraftError when a topic has records already, which the demo would count as its own."""
    if used := used_topics(services, project):
        raise GraftError(
            f"Kafka at {services.kafka}: the demo counts what it sends, so its topics must be empty; these are not: "
            f"{', '.join(used)}; delete them, or unset GRAFT_KAFKA to use the embedded broker"
        )


def _compared(project: Project, outcome: Outcome, folder: Path, console: Console, timings: Timings) -> Compared | None:
    """The baselines on the first examples; None when there is none."""
    from lab.demo.compare import compare  # noqa: PLC0415 - imports Feast, whose metrics folder stages would inherit

    if not outcome.first_examples:
        return None
    with timings.phase("baselines"), progress("baselines") as advance:
        compared = compare(project, outcome.first_examples, folder, advance)
    if (folder / FILE).exists():
        told = f"what the baselines left out and why: {folder / FILE}"
        console.print(told, highlight=False, markup=False, soft_wrap=True)
    return compared


def _findings(
    project: Project, data: Data, versions: Registry, outcome: Outcome, compared: Compared | None, timings: Timings
) -> Findings:
    """The outcome together with the learner's own metrics."""
    newest = versions.latest()
    metrics = versions.load_manifest(newest).metrics if newest else {}
    baselines = compared and compared.baselines
    summary = summary_of(data.name, outcome, metrics, project.tasks, baselines, timings.total)
    return Findings(
        summary=summary,
        outcome=outcome,
        tasks=project.tasks,
        points=read_history(versions.metrics_folder),
        plain_points=compared.points if compared else [],
        timings=timings.phases,
        data_note=data.note,
    )
