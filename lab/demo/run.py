"""Runs the demo from its first command to its report; `run_demo` has the order."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console

from graft.project import load_project
from lab.demo.outcome import Outcome, VersionExamples, Witness
from lab.demo.report import STUDY_PAGE, Findings, summary_of, write_report
from lab.dev.processes import Command, Runner
from lab.dev.run import Learnt, Options, own_environment, running_project
from lab.dev.session import Asking
from lab.dev.watch import Screen
from lab.embedded.servers import free_port
from lab.pairs.project_folder import EVENTS
from runtime.folder import replacing
from stream.replay.event_file import impressions_of
from student.evaluate.history import read_history
from student.versions.registry import Registry

_ASKING = Asking(per_second=20.0, items_each=20, keep=None)
_READ_TO_END_SECONDS = 5.0


class Plan(NamedTuple):
    """The pair's name in `graft pair make`, the folder of the user's own copy, and how much of it is learnt."""

    data: str
    own_copy: Path | None = None
    impressions: int | None = None
    """Only the first of them; None: all."""
    compared: int = 10_000
    """Of the first examples, which the study learns: 10,000 of MovieLens take half a minute of two cores."""
    speed: float | None = None
    """As in `graft dev`."""

    @property
    def note(self) -> str:
        """What the data are, for the report."""
        if self.data == "simulated":
            return "simulated pair: two generated domains, no real users"
        if self.own_copy is not None:
            return "MovieLens, your own copy: teacher from 1M, stream of 100K"
        return "MovieLens: teacher trained on 1M, the stream is 100K in time order"


def run_demo(plan: Plan, folder: Path, report: Path, console: Console, command: str) -> Findings:
    """Make the pair in `folder`/pair, stream it, compare, and write the report; `command` is what asked for it.

    GraftError when there can be no report.
    """
    began, seconds = time.monotonic(), dict[str, float]()
    runner = Runner(console, folder, {}, folder / "commands.log")

    @contextmanager
    def phase(name: str) -> Iterator[None]:
        phase_began = time.monotonic()
        yield
        seconds[name] = time.monotonic() - phase_began

    # 1. A project with its teacher.
    own_copy = ("--movielens", str(plan.own_copy)) if plan.own_copy else ()
    limit = ("--events", str(plan.impressions)) if plan.impressions else ()
    with phase("data"):
        runner.run(Command(("pair", "make", plan.data, "pair", *own_copy, *limit), shows_progress=True))
    with phase("teacher"):
        runner.run(Command(("pair", "train-teacher", "pair"), shows_progress=True))
    # 2. All its events streamed, learnt and served.
    with phase("stream"):
        outcome = _streamed(plan, folder / "pair", console)
    # 3. The models that could be better than its student.
    study: dict[str, Any] | None = None
    if outcome.joined.examples:
        with phase("study"):
            study = _studied(plan, runner, report)
    # 4. One report.
    project, versions = load_project(folder / "pair"), Registry(outcome.versions)
    newest = versions.latest()
    metrics = versions.load_manifest(newest).metrics if newest else {}
    findings = Findings(
        summary=summary_of(plan.data, outcome, metrics, project.tasks, study, time.monotonic() - began),
        outcome=outcome,
        tasks=project.tasks,
        points=read_history(versions.metrics_folder),
        seconds=seconds,
        data_note=plan.note,
    )
    index = write_report(report, findings, command)
    console.print(f"report: {index}", highlight=False, markup=False, soft_wrap=True)
    return findings


def _streamed(plan: Plan, folder: Path, console: Console) -> Outcome:
    """What happened while `graft dev` ran the project until all was learnt. GraftError when it cannot be kept alive."""
    options = Options(folder, speed=plan.speed, port=free_port(), asking=_ASKING)
    impression_ids = {impression.impression_id for impression in impressions_of(folder / EVENTS)}
    with running_project(options, own_environment(None, None), console, lambda _line: None) as session:
        setting, watch = session.setting, session.watch
        topics, servers = setting.project.topics, setting.services.kafka
        versions, hits = VersionExamples(Registry(setting.versions)), [watch.hit_rate]
        with Witness(servers, topics, setting.started_at) as witness, Screen(console) as screen:

            def look() -> None:
                witness.check()
                versions.refresh()
                hits.append(watch.hit_rate)

            session.follow(screen, Learnt(session), look)
            witness.read_to_end(_READ_TO_END_SECONDS)
            session.client.stop()
            screen.finish(watch.look())
            look()
        return Outcome(
            joined=witness.joined(impression_ids),
            came_at_seconds=witness.came_at_seconds,
            answers=list(session.client.answers),
            hits=hits,
            scorer_swaps=watch.scorer_swaps,
            dead_letters=watch.dead_letters,
            examples_of_version=versions.of,
            restarts={stage: trouble.restarts for stage, trouble in session.supervisor.troubles().items()},
            versions=setting.versions,
            logs=setting.logs,
        )


def _studied(plan: Plan, runner: Runner, report: Path) -> dict[str, Any]:
    """What `graft study` finds on the first examples; its page lies beside the report's."""
    with as_file(files("lab.demo") / "study.toml") as grid:
        options = ("--grid", str(grid), "--events", str(plan.compared), "--out", str(runner.folder / "study"))
        runner.run(Command(("study", "pair", *options), shows_progress=True))
    made = runner.folder / "study"
    report.mkdir(parents=True, exist_ok=True)
    with replacing(report / STUDY_PAGE) as file:
        file.write((made / "study.html").read_bytes())
    study: dict[str, Any] = json.loads((made / "headline.json").read_text("utf-8"))
    return study
