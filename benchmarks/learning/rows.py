"""What all turns learn: one pair's examples and logits, in the learner's setup; and how a turn is measured."""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.repo.store import compile_spec, view_sources
from features.spec import FeatureSpec
from graft.progress import progress
from graft.project import Project
from lab.study.log.log_in_memory import records_of
from lab.study.log.memory_store import Sources
from stream.events import Example, TeacherRequest
from stream.log.examples import ExampleRecord
from student.learn.setup import LearnerSetup
from student.versions.manifest import Metrics
from teacher_cache.domain.domain_map import DomainMap
from teacher_cache.domain.request_scorer import RequestScorer
from teacher_cache.kinds.load import load_teacher

NO_REDIS = "redis://127.0.0.1:6379/0"  # part of Feast's configuration; nothing connects to it


class Bench(NamedTuple):
    """One pair's rows: the learner's setup, N examples in their order, and the teacher's logits of them."""

    project: Project
    setup: LearnerSetup
    records: Sequence[ExampleRecord]
    logit_NT: NDArray[np.float32]
    scorer: RequestScorer

    @property
    def task(self) -> str:
        """The binary task whose AUC is printed."""
        return next(task.name for task in self.setup.tasks if task.kind == "binary")

    def micro_batches(self) -> Iterator[tuple[list[Any], Any]]:
        """The examples, as many at a time as a step has, with their logits."""
        size = self.setup.student.micro_batch
        for first in range(0, len(self.records), size):
            rows = slice(first, first + size)
            yield [record.example for record in self.records[rows]], self.logit_NT[rows]


class Spent(NamedTuple):
    """Seconds by the clock, and of this process's CPU time, which a busy machine distorts less."""

    wall: float
    cpu: float


def now() -> Spent:
    return Spent(time.perf_counter(), time.process_time())


def since(began: Spent) -> Spent:
    return Spent(*(end - start for start, end in zip(began, now(), strict=True)))


class Measured(NamedTuple):
    """One turn: what it took, the examples learnt in it, and the AUC on the task of each arm or library."""

    spent: Spent
    examples: int
    auc: Mapping[str, float | None] = {}


def load(project: Project, events: int | None) -> Bench:
    """The project's own events, joined as the stream joins them, and scored by its teacher."""
    spec, views = compile_spec(project.repo, NO_REDIS, project.features), view_sources(project.repo, NO_REDIS)
    sources = Sources({v: (t.path, t.join_key, t.timestamp_field) for v, t in views.tables.items()}, views.pushed)
    with progress("joining") as advance:
        joined = records_of(project, spec, sources, project.folder / "events.jsonl", advance)
        records = list(islice(joined, events))
    setup = project.learner_setup(spec)
    scorer = scorer_of(project, spec)
    return Bench(project, setup, records, teacher_logits(scorer, [record.example for record in records]), scorer)


def scorer_of(project: Project, spec: FeatureSpec) -> RequestScorer:
    """The scorer that the batch scorer uses."""
    teacher = load_teacher(project.teacher, project.folder)
    return RequestScorer(teacher, DomainMap(project.teacher, project.folder, teacher, spec), spec)


def requests_of(examples: Iterable[Example]) -> list[TeacherRequest]:
    return [TeacherRequest.model_construct(**example.__dict__) for example in examples]


def teacher_logits(scorer: RequestScorer, examples: Iterable[Example]) -> NDArray[np.float32]:
    """What the batch scorer would put into the cache."""
    requests = requests_of(examples)
    scored = scorer.score(requests)
    assert scored is not None
    assert len(scored.logit_BT) == len(requests)
    return scored.logit_BT


def auc_by_arm(bench: Bench, metrics: Metrics) -> dict[str, float | None]:
    return {arm: of_arm.auc for arm, of_arm in metrics[bench.task].items()}
