"""Watches the running stages: reads their metrics and shows them, as a live table or as lines without a TTY."""

import http.client
import time
import urllib.request
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Self

from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table

from graft.project import Project
from lab.dev.client import ScoringClient, percentile_ms
from lab.dev.processes import LEARNER, SCORER, STREAM, TEACHER, Ports, Supervisor, Trouble
from lab.embedded.services import Services
from stream.events import ContextValue, EntityId
from stream.tasks import TaskSpec
from student.evaluate.arms import CONTROL, SERVED_CONTROL, SERVED_STUDENT, STUDENT

_PLAIN_SECONDS = 5.0
_LONGEST_LINE = 200


class View(NamedTuple):
    """Everything that the table shows; None is not known yet. Lags are records, latencies milliseconds."""

    title: str
    seconds: float
    events: int  # all that there are to send
    read: int  # by the stream, with those of earlier starts
    dead_letters: int
    examples: int  # written since this start
    learned: int  # since the first version
    events_per_second: float
    lags: Mapping[str, int | None]
    cache_hit_rate: float | None
    version: str | None
    swaps: int
    scores: Mapping[str, Sequence[float | None]]  # "AUC of TASK" -> student's and control's, row by row
    served_scores: Mapping[str, Sequence[float | None]]
    requests: int
    failed_requests: int
    requests_per_second: float
    p50_ms: float | None
    p99_ms: float | None
    troubles: Mapping[str, Trouble]  # of each process


class Screen:
    """Shows views. A context manager; the last view stays on the screen."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None
        self._next_line_at = 0.0

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def finish(self, view: View) -> None:
        """Draw `view` at once, as the last one of what has ended."""
        self._next_line_at = 0.0
        self.show(view)

    def show(self, view: View) -> None:
        """Draw `view`: at once on a terminal, at most every 5 s elsewhere."""
        if self._live is not None:
            self._live.update(table_of(view), refresh=True)
        elif time.monotonic() >= self._next_line_at:
            self._next_line_at = time.monotonic() + _PLAIN_SECONDS
            self._console.print(line_of(view), soft_wrap=True, markup=False, highlight=False)


def table_of(view: View) -> Table:
    """The live table."""
    table = Table(title=escape(f"{view.title}, {view.seconds:.0f} s"), title_justify="left", show_header=False)
    table.add_column(style="bold")
    table.add_column(min_width=60)
    table.add_row("", ProgressBar(total=view.events, completed=view.read, width=60))
    for name, value in _rows(view):
        table.add_row(escape(name), escape(value))
    return table


def line_of(view: View) -> str:
    """The same as one line."""
    return f"[{view.seconds:5.0f} s] " + "; ".join(f"{name} {value}" for name, value in _rows(view))


def _rows(view: View) -> list[tuple[str, str]]:
    hits = f"{_shown(view.cache_hit_rate, '.1%')} of examples had their logit"
    dead = f", {view.dead_letters:,} of them dead letters" if view.dead_letters else ""
    return [
        ("events", f"{view.read:,} of {view.events:,} read{dead}"),
        ("examples", f"{view.examples:,}, {view.learned:,} learnt"),
        ("events/s", f"{view.events_per_second:,.0f}"),
        ("lag", ", ".join(f"{stage} {_shown(lag, ',')}" for stage, lag in view.lags.items())),
        *([("teacher cache", hits)] if TEACHER in view.lags else []),
        ("version", f"{view.version or '-'} after {view.swaps} swaps"),
        ("student / control", _scores(view.scores)),
        ("the same, served", _scores(view.served_scores)),
        ("requests", f"{view.requests:,} ({view.requests_per_second:.0f}/s), {view.failed_requests} failed"),
        ("latency", f"p50 {_shown(view.p50_ms, '.1f', ' ms')}, p99 {_shown(view.p99_ms, '.1f', ' ms')}"),
        ("restarts", str(sum(trouble.restarts for trouble in view.troubles.values()))),
        *((stage, _trouble(trouble)) for stage, trouble in view.troubles.items() if trouble.restarts),
    ]


def _trouble(trouble: Trouble) -> str:
    line = "".join(c if c.isprintable() else "?" for c in trouble.last_line)[:_LONGEST_LINE]
    times = "once" if trouble.restarts == 1 else f"{trouble.restarts} times"
    return f"started again {times}; its last line was: {line or '(none)'}"


def _scores(by_task: Mapping[str, Sequence[float | None]]) -> str:
    told = [f"{task} {' / '.join(_shown(score, '.4f') for score in arms)}" for task, arms in by_task.items()]
    return ", ".join(told) or "-"


def _shown(value: float | None, form: str, unit: str = "") -> str:
    return "-" if value is None else f"{value:{form}}{unit}"


Labels = tuple[tuple[str, str], ...]
Samples = Mapping[tuple[str, Labels], float]

_TIMEOUT_SECONDS = 1.0


def parse_samples(text: str) -> Samples:
    """The samples of a Prometheus text page, keyed by name and sorted labels."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


class StageMetrics:
    """The metrics of one stage, also over restarts: when a counter falls, its earlier value is added to the new one."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._samples: Samples = {}
        self._carried: dict[tuple[str, Labels], float] = {}

    def refresh(self) -> None:
        """Read ``http://127.0.0.1:port/metrics`` again; the old values stay while nothing answers there."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/metrics", timeout=_TIMEOUT_SECONDS) as reply:
                page = reply.read().decode()
        except (OSError, http.client.HTTPException):  # not started yet, or restarting
            return
        self.update(parse_samples(page))

    def update(self, samples: Samples) -> None:
        """Take `samples` as the newest page."""
        for key, value in self._samples.items():
            if key[0].endswith("_total") and samples.get(key, 0.0) < value:
                self._carried[key] = self._carried.get(key, 0.0) + value
        self._samples = samples

    def total(self, name: str, **labels: str) -> float:
        """The sum of the counter `name` over all series that have `labels`, restarts included; 0 before the first."""
        keys = {key for key in (*self._samples, *self._carried) if _matches(key, name, labels)}
        return sum(self._samples.get(key, 0.0) + self._carried.get(key, 0.0) for key in keys)

    def totals(self, name: str, label: str) -> dict[str, float]:
        """The counter `name` by the values of `label`."""
        series = [dict(labels) for one, labels in (*self._samples, *self._carried) if one == name]
        return {value: self.total(name, **{label: value}) for value in sorted({of[label] for of in series})}

    def gauge(self, name: str, **labels: str) -> float | None:
        """The sum of the gauge `name` over all series that have `labels`; None before the first."""
        values = [value for key, value in self._samples.items() if _matches(key, name, labels)]
        return sum(values) if values else None


def _matches(key: tuple[str, Labels], name: str, labels: Mapping[str, str]) -> bool:
    return key[0] == name and set(labels.items()) <= set(key[1])


_RATE_LOOKS = 10
_LATEST_ANSWERS = 1_000
_MEASURES = {"binary": ("auc", "auc_against_drawn"), "regression": ("rmse",)}
_NAMES = {"auc": "AUC", "auc_against_drawn": "AUC against drawn", "rmse": "RMSE"}


class Sample(NamedTuple):
    """Of the impressions at a file's beginning: each user with the last context, the items, the mean size."""

    contexts: Mapping[EntityId, Mapping[str, ContextValue]]
    items: Sequence[EntityId]
    impression_bytes: float


class Asking(NamedTuple):
    """How the client asks the scorer. `keep`: how many of the last answers stay; None: all."""

    per_second: float
    items_each: int
    keep: int | None


class Setting(NamedTuple):
    """What a session needs; `environment` has GRAFT_KAFKA and the other settings of the stages."""

    project: Project
    event_file: Path
    events: int
    sent_before: int  # of the events, by earlier starts
    pace: Sequence[str]  # options of `graft replay`
    max_lag: int
    sample: Sample
    asking: Asking
    environment: dict[str, str]
    ports: Ports
    versions: Path
    logs: Path
    started_at: float  # of time.monotonic
    services: Services


class Watch:
    """The metrics of a running session; times are in seconds since its `started_at`."""

    def __init__(self, setting: Setting, client: ScoringClient, supervisor: Supervisor) -> None:
        ports = setting.ports._asdict()
        if setting.project.teacher is None:
            del ports[TEACHER]
        self._metrics = {stage: StageMetrics(port) for stage, port in ports.items()}
        self._setting, self._client, self._supervisor = setting, client, supervisor
        self._paces: deque[tuple[float, float, int]] = deque([(0.0, 0.0, 0)], maxlen=_RATE_LOOKS)

    @property
    def learned(self) -> int:
        """Examples that the learner has learnt."""
        return int(self._metrics[LEARNER].gauge("graft_student_learned_examples") or 0)

    @property
    def read(self) -> int:
        """Events that the stream has read since this start."""
        return int(self._metrics[STREAM].total("graft_stream_records_total"))

    @property
    def scorer_swaps(self) -> int:
        """Swaps that the scorer counted, restarts included."""
        return int(self._metrics[SCORER].total("graft_scorer_swaps_total"))

    @property
    def pending(self) -> int | None:
        """Impressions that wait for feedback; None while that is not known."""
        pending = self._metrics[STREAM].gauge("graft_stream_pending_impressions")
        return None if pending is None else int(pending)

    @property
    def dead_letters(self) -> dict[str, int]:
        """By their code how many messages the stream could not use."""
        counts = self._metrics[STREAM].totals("graft_stream_dead_letters_total", "reason")
        return {code: int(count) for code, count in counts.items()}

    @property
    def left_out(self) -> int:
        """Impressions that sampling has made no example of, since this start."""
        return int(self._metrics[STREAM].total("graft_stream_left_out_total"))

    @property
    def hit_rate(self) -> float | None:
        """The share of the teacher logits asked for that were found; None before the first was asked for."""
        logits, learner = "graft_student_logits_total", self._metrics[LEARNER]
        asked = learner.total(logits)
        return learner.total(logits, outcome="hit") / asked if asked else None

    def is_up(self) -> bool:
        """Whether teacher, learner and scorer work. The stream is not asked: the replay itself waits for it."""
        self._refresh()
        teacher = self._metrics.get(TEACHER)
        teacher_reads = teacher is None or teacher.gauge("graft_teacher_lag_records") is not None
        has_version = self._metrics[LEARNER].gauge("graft_student_version") or 0
        return teacher_reads and has_version > 0 and len(self._client.answers) > 0

    def look(self) -> View:
        """Read every stage's metrics again."""
        self._refresh()
        counts, answers = self._client.counts, list(self._client.answers)[-_LATEST_ANSWERS:]
        seconds, events = time.monotonic() - self._setting.started_at, self._setting.events
        events_per_second, requests_per_second = self._rates(seconds)
        return View(
            title=f"graft dev {self._setting.project.name}",
            seconds=seconds,
            events=events,
            read=min(events, self._setting.sent_before + self.read),
            dead_letters=sum(self.dead_letters.values()),
            examples=int(self._metrics[STREAM].total("graft_stream_examples_total")),
            learned=self.learned,
            events_per_second=events_per_second,
            lags=self._lags(),
            cache_hit_rate=self.hit_rate,
            version=counts.version,
            swaps=counts.swaps,
            scores=self._scores(STUDENT, CONTROL),
            served_scores=self._scores(SERVED_STUDENT, SERVED_CONTROL),
            requests=counts.requests,
            failed_requests=counts.failed,
            requests_per_second=requests_per_second,
            p50_ms=percentile_ms(answers, 0.5),
            p99_ms=percentile_ms(answers, 0.99),
            troubles=self._supervisor.troubles(),
        )

    def _refresh(self) -> None:
        for metrics in self._metrics.values():
            metrics.refresh()

    def _rates(self, seconds: float) -> tuple[float, float]:
        """Events that the stream read and requests, each per second over the latest looks."""
        now = (seconds, float(self.read), self._client.counts.requests)
        before = self._paces[0]
        self._paces.append(now)
        elapsed = max(1e-9, now[0] - before[0])
        return (now[1] - before[1]) / elapsed, (now[2] - before[2]) / elapsed

    def _lags(self) -> dict[str, int | None]:
        lags: dict[str, int | None] = {}
        for stage, room in ((STREAM, "stream"), (TEACHER, "teacher"), (LEARNER, "student")):
            if metrics := self._metrics.get(stage):
                lag = metrics.gauge(f"graft_{room}_lag_records")
                lags[stage] = None if lag is None else int(lag)
        return lags

    def _scores(self, *arms: str) -> dict[str, tuple[float | None, ...]]:
        found = {}
        for task in self._setting.project.tasks:
            scores = {m: tuple(self._score(m, task, arm) for arm in arms) for m in _MEASURES[task.kind]}
            measure = next((m for m, of_arms in scores.items() if any(of_arms)), _MEASURES[task.kind][0])
            found[f"{_NAMES[measure]} of {task.name}"] = scores[measure]
        return found

    def _score(self, measure: str, task: TaskSpec, arm: str) -> float | None:
        name = "graft_student_progressive_metric"
        return self._metrics[LEARNER].gauge(name, metric=measure, slice="whole", task=task.name, arm=arm)
