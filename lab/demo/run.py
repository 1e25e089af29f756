"""Runs the demo from its first command to its report, and counts what happens meanwhile; `run_demo` has the order."""

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager, suppress
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from graft.project import load_project
from lab.demo.report import STUDY_PAGE, Findings, Summary, by_arm, served_age, write_report
from lab.dev.client import Answer, percentile_ms, swaps_seen
from lab.dev.processes import Command, Runner
from lab.dev.run import Learnt, Options, own_environment, running_project
from lab.dev.watch import Asking, Screen
from lab.embedded.servers import free_port
from lab.pairs.project_folder import EVENTS
from runtime.errors import GraftError
from runtime.folder import replacing
from stream.config import Topics
from stream.log.examples import ExampleReader
from stream.replay.event_file import impressions_of
from student.evaluate.history import read_history
from student.versions.registry import Registry
from student.versions.version_folder import VersionError

_ASKING = Asking(per_second=20.0, items_each=20, keep=None)
_POLL_SECONDS = 0.2
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


def run_demo(plan: Plan, folder: Path, report: Path, console: Console, command: str) -> Summary:
    """Make the pair in `folder`/pair, stream it, compare, and write the report; `command` is what asked for it.

    GraftError when there can be no report.
    """
    phases = dict[str, float]()
    runner = Runner(console, folder, {}, folder / "commands.log")

    @contextmanager
    def phase(name: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        phases[name] = time.monotonic() - began

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
    summary = Summary(
        data=plan.data,
        **outcome.numbers(),
        auc={task.name: by_arm(metrics, task) for task in project.tasks if task.kind == "binary"},
        rmse={task.name: by_arm(metrics, task) for task in project.tasks if task.kind == "regression"},
        served_age_examples=served_age(metrics),
        study=study,
        phases=phases,
        seconds=sum(phases.values()),
    )
    swaps = swaps_seen(outcome.answers)
    learnt = [outcome.examples_of_version[s.version] for s in swaps if s.version in outcome.examples_of_version]
    points = read_history(versions.metrics_folder)
    index = write_report(report, Findings(summary, project.tasks, points, outcome.answers, learnt, plan.note), command)
    console.print(f"report: {index}", highlight=False, markup=False, soft_wrap=True)
    return summary


class Joined(NamedTuple):
    """How many impressions were sent, how many examples they became, and how many are missing, doubled or unknown."""

    impressions: int
    examples: int
    missing: int
    doubled: int
    unknown: int


def joined(impressions: AbstractSet[str], times: Mapping[str, int]) -> Joined:
    """What became of the distinct valid ids that were sent. `times`: how often each id came as an example."""
    examples = sum(times.values())
    return Joined(
        impressions=len(impressions),
        examples=examples,
        missing=len(impressions - times.keys()),
        doubled=examples - len(times),
        unknown=len(times.keys() - impressions),
    )


class Outcome(NamedTuple):
    """All that was counted while the stages ran; times in seconds since they started."""

    joined: Joined
    came_at_seconds: Sequence[float]
    """Of every example, in the order of the topic."""
    answers: Sequence[Answer]
    cache_hit_rate: float | None
    scorer_swaps: int
    dead_letters: int
    examples_of_version: Mapping[str, int]
    restarts: Mapping[str, int]
    versions: Path
    """The registry of students."""

    def numbers(self) -> dict[str, Any]:
        """What the summary says of it."""
        freshness = freshness_seconds(self.came_at_seconds, self.examples_of_version, self.answers)
        return {
            **self.joined._asdict(),
            "dead_letters": self.dead_letters,
            "requests": len(self.answers),
            "failed_requests": sum(a.fault is not None for a in self.answers),
            "retried_requests": sum(a.retries > 0 for a in self.answers),
            "degraded_answers": sum(a.degraded for a in self.answers),
            "swaps": min(len(swaps_seen(self.answers)), self.scorer_swaps),
            "score_p50_ms": percentile_ms(self.answers, 0.5),
            "score_p99_ms": percentile_ms(self.answers, 0.99),
            "freshness_p50_s": quantile(freshness, 0.5),
            "freshness_p95_s": quantile(freshness, 0.95),
            "cache_hit_rate": self.cache_hit_rate,
            "restarts": {stage: count for stage, count in self.restarts.items() if count},
        }


def freshness_seconds(
    came_at_seconds: Sequence[float], examples_of_version: Mapping[str, int], answers: Sequence[Answer]
) -> NDArray[np.float64]:
    """For each example, in the order in which it came: seconds until the first answer that it could have moved.

    An example comes as soon as the join has closed its window and committed it. Infinite where no answer came of a
    version that had learnt it. A version that the client saw, but whose examples are not known, is passed over.
    """
    came_at_N = np.asarray(came_at_seconds, np.float64)
    learnt = [(a.at_seconds, examples_of_version.get(a.version or "")) for a in answers]
    known = [(at, examples) for at, examples in learnt if examples is not None]
    answered_at_A = np.array([at for at, _ in known] + [np.inf])
    learnt_A = np.maximum.accumulate(np.array([examples for _, examples in known] + [np.iinfo(np.int64).max]))
    number_N = np.arange(len(came_at_N))
    return np.asarray(answered_at_A[np.searchsorted(learnt_A, number_N, side="right")] - came_at_N)


def quantile(seconds_N: NDArray[np.float64], share: float) -> float | None:
    """What `share` of the examples took at most; None without an example, or where so many moved no answer."""
    seconds = float(np.quantile(seconds_N, share, method="higher")) if len(seconds_N) else np.inf
    return seconds if np.isfinite(seconds) else None


class Witness:
    """Reads every committed example of the topic in a thread of its own.

    `came_at_seconds` has when each was read, since `started_at` (of time.monotonic); `times` how often each id came.
    """

    def __init__(self, kafka_servers: str, topics: Topics, started_at: float) -> None:
        self.came_at_seconds: list[float] = []
        self.times = Counter[str]()
        self._started_at = started_at
        self._reader = ExampleReader(kafka_servers, topics, {})
        self._stop = threading.Event()
        self._empty_poll = threading.Event()
        self._failure: GraftError | None = None
        self._thread = threading.Thread(target=self._read_until_stopped, name="witness", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._reader.close()

    def check(self) -> None:
        """Raise the error that ended the reading, such as records that were dropped before they were read."""
        if self._failure is not None:
            raise self._failure

    def read_to_end(self, seconds: float) -> None:
        """Return when the topic has nothing more to read, or after `seconds`."""
        for _ in range(2):  # the first of the two polls may have begun before the topic's last record
            self._empty_poll.clear()
            self._empty_poll.wait(seconds / 2)

    def _read_until_stopped(self) -> None:
        try:
            while not self._stop.is_set():
                records = self._reader.poll(_POLL_SECONDS)
                self.came_at_seconds += [time.monotonic() - self._started_at] * len(records)
                self.times.update(record.example.impression_id for record in records)
                if not records:
                    self._empty_poll.set()
        except GraftError as error:
            self._failure = error


def _streamed(plan: Plan, folder: Path, console: Console) -> Outcome:
    """What happened while `graft dev` ran the project until all was learnt. GraftError when it cannot be kept alive."""
    options = Options(folder, speed=plan.speed, port=free_port(), asking=_ASKING)
    impression_ids = {impression.impression_id for impression in impressions_of(folder / EVENTS)}
    with running_project(options, own_environment(None, None), console, lambda _line: None) as session:
        setting, watch = session.setting, session.watch
        registry, examples_of_version = Registry(setting.versions), dict[str, int]()
        topics, servers = setting.project.topics, setting.services.kafka
        with Witness(servers, topics, setting.started_at) as witness, Screen(console) as screen:

            def look() -> None:
                witness.check()
                for version in registry.versions():  # old ones are pruned meanwhile
                    if version not in examples_of_version:
                        with suppress(VersionError):  # pruned between the listing and the reading
                            examples_of_version[version] = registry.load_manifest(version).examples

            session.follow(screen, Learnt(session), look)
            witness.read_to_end(_READ_TO_END_SECONDS)
            session.client.stop()
            screen.finish(watch.look())
            look()
        return Outcome(
            joined=joined(impression_ids, witness.times),
            came_at_seconds=witness.came_at_seconds,
            answers=list(session.client.answers),
            cache_hit_rate=watch.hit_rate,
            scorer_swaps=watch.scorer_swaps,
            dead_letters=sum(watch.dead_letters.values()),
            examples_of_version=examples_of_version,
            restarts={stage: trouble.restarts for stage, trouble in session.supervisor.troubles().items()},
            versions=setting.versions,
        )


def _studied(plan: Plan, runner: Runner, report: Path) -> dict[str, Any]:
    """The headline of `graft study` on the first examples; its page lies beside the report's."""
    with as_file(files("lab.demo") / "study.toml") as grid:
        options = ("--grid", str(grid), "--events", str(plan.compared), "--out", str(runner.folder / "study"))
        runner.run(Command(("study", "pair", *options), shows_progress=True))
    report.mkdir(parents=True, exist_ok=True)
    with replacing(report / STUDY_PAGE) as file:
        file.write((runner.folder / "study" / "study.html").read_bytes())
    study: dict[str, Any] = json.loads((runner.folder / "study" / "headline.json").read_text("utf-8"))
    return study
