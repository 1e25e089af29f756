"""The same learner without Kafka, Redis, JSON and versions."""

from collections.abc import Sequence

from benchmarks.learning.rows import Bench, Measured, auc_by_arm, now, requests_of, since
from student.learn.learner import Learner
from teacher_cache.cache.unshown import UnshownRows, UnshownSampler
from teacher_cache.config import UnshownConfig

UNSHOWN_RATIO = 3  # as in the study's grid


def unshown_rows(bench: Bench) -> list[UnshownRows | None]:
    """Those of every micro-batch, made and scored as in the batch scorer."""
    sampler = UnshownSampler(bench.setup.spec, UnshownConfig(ratio=UNSHOWN_RATIO))
    scored = [bench.scorer.score(sampler.sample(requests_of(examples))) for examples, _ in bench.micro_batches()]
    return [rows and UnshownRows([row.features for row in rows.requests], rows.logit_BT) for rows in scored]


def learner_in_memory(bench: Bench, unshown: Sequence[UnshownRows | None] | None = None) -> Measured:
    """Without Kafka, Redis, JSON and versions."""
    return learn(Learner(bench.setup), bench, unshown)


def learn(learner: Learner, bench: Bench, unshown: Sequence[UnshownRows | None] | None = None) -> Measured:
    """All examples, by a learner that has learnt none; `unshown` has rows for each micro-batch."""
    batches = list(bench.micro_batches())
    unshown = unshown or [None] * len(batches)
    began = now()
    for (examples, logit_BT), rows in zip(batches, unshown, strict=True):
        learner.learn(examples, logit_BT, rows)
    spent = since(began)
    return Measured(spent, learner.examples, auc_by_arm(bench, learner.evaluation.whole()))
