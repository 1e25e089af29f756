"""The same learner without Kafka, Redis, JSON and versions."""

from benchmarks.learning.rows import Bench, Measured, auc_by_arm, now, since
from student.learn.learner import Learner


def learner_in_memory(bench: Bench) -> Measured:
    """Without Kafka, Redis, JSON and versions."""
    return learn(Learner(bench.setup), bench)


def learn(learner: Learner, bench: Bench) -> Measured:
    """All examples, by a learner that has learnt none."""
    batches = list(bench.micro_batches())
    began = now()
    for examples, logit_BT in batches:
        learner.learn(examples, logit_BT)
    spent = since(began)
    return Measured(spent, learner.examples, auc_by_arm(bench, learner.evaluation.whole()))
