"""Bootstrap: a first version from the teacher alone, before the first label. Shapes: P rows, T teacher tasks."""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from features.contract import ContextValue
from features.online.reader import FeatureReader
from features.spec import FeatureBatch, FeatureSpec
from runtime.compute import batched
from runtime.errors import InvalidInputError
from stream.events import EntityId, Impression, TeacherRequest
from student.learn.config import BootstrapConfig
from student.learn.learner import Learner
from student.learn.network.arm import least_explained
from student.learn.network.heads import varies
from student.learn.setup import LearnerSetup
from student.versions.manifest import Draft
from student.versions.registry import Registry
from teacher_cache.backfill.backfill import requests_of_impressions
from teacher_cache.config import TeacherConfig
from teacher_cache.domain.request_scorer import BATCH_ROWS, RequestScorer

_log = logging.getLogger(__name__)

Contexts = Mapping[EntityId, Sequence[Mapping[str, ContextValue]]]
"""By user the contexts of impressions that were logged."""


class BootstrapRows(NamedTuple):
    """P rows of a bootstrap: their features for the student, and the teacher's logits."""

    features: FeatureBatch
    logit_PT: NDArray[np.float32]


class BootstrapReport(NamedTuple):
    """What was distilled into `version`.

    `explained`: per teacher task the share of its variance that the student explains on the rows held out. Served
    heads have started from those with at least `least_explained`.
    """

    version: str
    rows: int
    explained: dict[str, float]
    least_explained: float
    steps: int
    seconds: float


def sample_rows(
    user_ids: Sequence[EntityId],
    item_ids: Sequence[EntityId],
    count: int,
    seed: int,
    contexts: Contexts = MappingProxyType({}),
) -> list[Impression]:
    """`count` distinct rows (user, item) of distinct ids, or all where there are not so many, in a random order.

    Each stands as an impression that nobody was shown: in one of the user's `contexts`, drawn at random, or in an empty
    one, whose features are the defaults.
    """
    total = len(user_ids) * len(item_ids)
    random = np.random.Generator(np.random.PCG64(seed))
    chosen = random.choice(total, min(count, total), replace=False)
    rows = [(user_ids[n // len(item_ids)], item_ids[n % len(item_ids)]) for n in chosen.tolist()]
    return [
        Impression.of_checked(
            {
                "impression_id": f"bootstrap-{n}",
                "user_id": user_id,
                "item_id": item_id,
                "event_time_ms": 0,
                "context": dict(known[int(random.integers(len(known)))]) if (known := contexts.get(user_id)) else {},
            }
        )
        for n, (user_id, item_id) in enumerate(rows)
    ]


def score_rows(
    rows: Sequence[Impression], reader: FeatureReader, scorer: RequestScorer, spec: FeatureSpec, batch_rows: int
) -> BootstrapRows:
    """The rows with their features of now; those that the teacher cannot score are left out.

    InvalidInputError when none is left; ServiceUnavailableError when the feature store does not answer.
    """
    return score_requests(requests_of_impressions(rows, reader, spec, batch_rows), scorer, spec, batch_rows)


def score_requests(
    requests: Iterator[TeacherRequest], scorer: RequestScorer, spec: FeatureSpec, batch_rows: int
) -> BootstrapRows:
    """The same of rows that have their features."""
    features, logits, count = [], [], 0
    for batch in batched(requests, batch_rows):
        count += len(batch)
        scored = scorer.score(batch)
        if scored is not None and scored.requests:
            features += [request.features for request in scored.requests]
            logits.append(scored.logit_BT)
    if not features:
        raise InvalidInputError(f"the teacher scored none of {count} rows; there is nothing to distil")
    return BootstrapRows(spec.encode(spec.columns_of(features)), np.concatenate(logits))


def run_bootstrap(  # noqa: PLR0913 - by keyword: one for each part that a command brings
    *,
    setup: LearnerSetup,
    config: BootstrapConfig,
    teacher: TeacherConfig,
    generation: str | None = None,
    registry: Registry,
    rows: Sequence[Impression],
    reader: FeatureReader,
    scorer: RequestScorer,
) -> BootstrapReport:
    """Publish a first version that has learnt the teacher's logits of `rows` and no example.

    `generation` names what the teacher's logits mean. Its control is untouched. InvalidInputError when the registry has
    a version, and when the student cannot learn any task of this teacher from what it sees.
    """
    torch.set_num_threads(1)  # sums in one order, on every machine
    started = time.monotonic()
    with registry.claim():
        if registry.latest() is not None:
            raise InvalidInputError(
                f"{registry.folder} has versions up to {registry.latest()}: a bootstrap is for an empty registry; set "
                "GRAFT_VERSIONS to another folder"
            )
        learner = Learner(setup)
        scored = score_rows(rows, reader, scorer, setup.spec, BATCH_ROWS)
        explained, least = learner.bootstrap(*scored, config.steps), least_explained(len(scored.logit_PT))
        if not learner.bootstrapped_rows:
            raise InvalidInputError(
                "the student cannot learn this teacher: of its variance on held-out rows the student explains "
                f"{explained_text(explained)}, at least {100 * least:.3g} % of one task is needed, so nothing is "
                f"published.{_without_variance(setup, scored.logit_PT)} Is teacher.inputs in graft.toml right ('graft "
                "check' lists what is defaulted)? Or set more bootstrap.steps or bootstrap.rows"
            )
        draft = Draft(
            examples=0,
            bootstrapped_rows=learner.bootstrapped_rows,
            offsets={},
            spec=setup.spec,
            tasks=list(setup.tasks),
            student=setup.student,
            teacher_tasks=[task.name for task in setup.teacher_tasks],
            teacher_version=teacher.version,
            teacher_generation=generation,
            metrics={},
        )
        version = registry.publish(
            draft, learner.served_tensors(), learner.tensors(), learner.state(), by="bootstrap"
        ).version
    _log.info(
        "published version %s bootstrapped_rows=%d steps=%d",
        version,
        learner.bootstrapped_rows,
        config.steps,
        extra={"version": version},
    )
    seconds = time.monotonic() - started
    return BootstrapReport(version, learner.bootstrapped_rows, explained, least, config.steps, seconds)


def explained_text(explained: Mapping[str, float]) -> str:
    """As ``like 97.1 %, rating 98.2 %``."""
    return ", ".join(f"{task} {100 * share:.1f} %" for task, share in explained.items())


def _without_variance(setup: LearnerSetup, logit_PT: NDArray[np.float32]) -> str:
    """Names the distilled teacher tasks that say the same of every row."""
    distilled = {config.teacher_task: setup.teacher_column(config.teacher_task) for config in setup.distillation}
    known = {task: logit_PT[np.isfinite(logit_PT[:, t]), t] for task, t in distilled.items()}
    same = [task for task, logit_P in known.items() if not varies(logit_P)]
    if not same:
        return ""
    return (
        f" The teacher says the same of every row for {', '.join(same)}; where it sees the context alone, "
        "'--events FILE' gives the rows contexts that were logged."
    )
