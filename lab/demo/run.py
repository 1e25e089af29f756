"""The demo from its first command to its report; the order of things is `run_demo`."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from graft.progress import progress
from graft.project import Project, load_project
from lab.demo.client import percentile_ms, swaps_seen
from lab.demo.curves import latest_metrics, read_progress
from lab.demo.data import Data
from lab.demo.events import read_events
from lab.demo.plan import Plan
from lab.demo.preparation import PREPARE_DAY_ZERO, make_pair, run_command, set_pace
from lab.demo.report import Findings, binary_tasks, write_report
from lab.demo.services import make_topics, running_services
from lab.demo.stages import environment_of
from lab.demo.streaming import Outcome, Setting, stream_events
from lab.demo.summary import Summary, auc_of, faults
from lab.pairs.project_folder import EVENTS


class Folders(NamedTuple):
    """Where a demo keeps what it makes, all of it in `run`, and where its report goes."""

    run: Path
    report: Path

    @property
    def project(self) -> Path:
        """The pair."""
        return self.run / "pair"

    @property
    def versions(self) -> Path:
        """The registry of students."""
        return self.run / "versions"

    @property
    def logs(self) -> Path:
        """What each process said."""
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
    """Prepare, stream, stop, report. GraftError when it cannot come to a report at all."""
    timings = Timings()
    with running_services() as services:
        environment = environment_of(services, folders.project, folders.versions)
        project = _prepare(plan, data, folders, environment, console, timings)
        make_topics(services, project)
        with progress("events") as advance:
            events = read_events(folders.project / EVENTS, advance)
        with timings.phase("stream"):
            setting = Setting(plan, project, events, environment, folders.versions, folders.logs)
            outcome = stream_events(setting, console)
    findings = _findings(project, data, folders.versions, outcome, timings, command)
    index = write_report(folders.report, findings)
    console.print(f"report: {index}", highlight=False, markup=False, soft_wrap=True)
    return findings


def _prepare(
    plan: Plan, data: Data, folders: Folders, environment: dict[str, str], console: Console, timings: Timings
) -> Project:
    """Write the project folder, train its teacher, fill the features."""
    folders.logs.mkdir(parents=True, exist_ok=True)
    log = folders.logs / "preparation.log"
    make, train_teacher = make_pair(data, plan)
    with timings.phase("data"):
        run_command(make, console, folders.run, {}, log)
        set_pace(folders.project, plan)
    with timings.phase("teacher"):
        run_command(train_teacher, console, folders.run, {}, log)
    with timings.phase("features"):
        for command in PREPARE_DAY_ZERO:
            run_command(command, console, folders.run, environment, log)
    return load_project(folders.project)


def _findings(
    project: Project, data: Data, versions: Path, outcome: Outcome, timings: Timings, command: str
) -> Findings:
    """The outcome with what the learner wrote of itself."""
    metrics = latest_metrics(versions)
    swaps = swaps_seen(outcome.answers)
    summary = Summary(
        data=data.name,
        impressions=outcome.joined.impressions,
        examples=outcome.joined.examples,
        dead_letters=outcome.dead_letters,
        requests=len(outcome.answers),
        failed_requests=sum(a.fault is not None for a in outcome.answers),
        swaps=min(len(swaps), outcome.scorer_swaps),
        score_p50_ms=percentile_ms(outcome.answers, 0.5),
        score_p99_ms=percentile_ms(outcome.answers, 0.99),
        cache_hit_rate=outcome.hits[-1].rate if outcome.hits else None,
        auc=auc_of(metrics, binary_tasks(project.tasks)),
        seconds=timings.total,
    )
    return Findings(
        summary=summary,
        joined=outcome.joined,
        faults=faults(summary, outcome.joined),
        tasks=project.tasks,
        metrics=metrics,
        points=read_progress(versions),
        answers=outcome.answers,
        swaps=swaps,
        scorer_swaps=outcome.scorer_swaps,
        examples_of_version=outcome.examples_of_version,
        hits=outcome.hits,
        restarts=outcome.restarts,
        timings=timings.phases,
        data_note=data.note,
        command=command,
    )
