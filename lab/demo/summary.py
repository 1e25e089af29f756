"""report/summary.json, and what makes a demo fail."""

from collections.abc import Mapping, Sequence

from lab.demo.baselines import Baselines
from lab.demo.outcome import Joined, Outcome
from lab.dev.client import percentile_ms
from runtime.frozen_model import FrozenModel
from stream.tasks import TaskSpec
from student.evaluate.arms import ALL_ARMS, SERVED_STUDENT
from student.versions.manifest import ArmMetrics, Metrics


class Summary(FrozenModel):
    """The demo in numbers. `examples` counts records on the topic: a doubled one counts twice."""

    data: str
    impressions: int
    examples: int
    dead_letters: int
    requests: int
    failed_requests: int
    swaps: int
    score_p50_ms: float | None
    score_p99_ms: float | None
    freshness_p50_s: float | None
    freshness_p95_s: float | None
    """Seconds from an example on the topic to the first answer of a version that has learnt it."""
    cache_hit_rate: float | None
    auc: Mapping[str, Mapping[str, float | None]]
    """Binary task -> arm -> progressive AUC in [0, 1]; None where an arm has no prediction for the task."""
    rmse: Mapping[str, Mapping[str, float | None]]
    """Regression task -> arm -> progressive RMSE in the label's unit; None likewise."""
    served_age_examples: float | None
    """How many examples lie between a served prediction's version and the example, on average over all tasks."""
    baselines: Baselines | None
    """None when there was no example."""
    seconds: float


def summary_of(
    data: str,
    outcome: Outcome,
    metrics: Metrics,
    tasks: Sequence[TaskSpec],
    baselines: Baselines | None,
    seconds: float,
) -> Summary:
    """The outcome in numbers, with the learner's own `metrics`; `data` names the pair."""
    return Summary(
        data=data,
        impressions=outcome.joined.impressions,
        examples=outcome.joined.examples,
        dead_letters=outcome.dead_letters,
        requests=len(outcome.answers),
        failed_requests=sum(a.fault is not None for a in outcome.answers),
        swaps=min(len(outcome.swaps), outcome.scorer_swaps),
        score_p50_ms=percentile_ms(outcome.answers, 0.5),
        score_p99_ms=percentile_ms(outcome.answers, 0.99),
        freshness_p50_s=outcome.freshness_seconds(0.5),
        freshness_p95_s=outcome.freshness_seconds(0.95),
        cache_hit_rate=outcome.hits[-1].rate if outcome.hits else None,
        auc={task.name: by_arm(metrics, task) for task in tasks if task.kind == "binary"},
        rmse={task.name: by_arm(metrics, task) for task in tasks if task.kind == "regression"},
        served_age_examples=_served_age(metrics),
        baselines=baselines,
        seconds=seconds,
    )


def by_arm(metrics: Metrics, task: TaskSpec) -> dict[str, float | None]:
    """The AUC of every arm on a binary task, the RMSE on a regression."""
    arms = metrics.get(task.name, {})
    return {arm: _score(arms[arm], task) if arm in arms else None for arm in ALL_ARMS}


def _score(metrics: ArmMetrics, task: TaskSpec) -> float | None:
    return metrics.auc if task.kind == "binary" else metrics.rmse


def _served_age(metrics: Metrics) -> float | None:
    served = [arms[SERVED_STUDENT] for arms in metrics.values() if SERVED_STUDENT in arms]
    ages = [(one.age_examples, one.count) for one in served if one.age_examples is not None]
    return sum(age * count for age, count in ages) / sum(count for _, count in ages) if ages else None


def faults(summary: Summary, joined: Joined) -> list[str]:
    """Why the demo failed, one line each; empty when every request was answered and each impression joined once."""
    requests = summary.requests
    lines = {
        "no score request was answered: the scorer never became ready": requests == 0,
        f"{summary.failed_requests} of {requests} score requests failed; 0 are allowed": summary.failed_requests,
        f"{joined.missing} of {joined.impressions} impressions did not become an example": joined.missing,
        f"{joined.doubled} examples came a second time; each impression must become exactly one": joined.doubled,
        f"{joined.unknown} examples have the id of no impression that was sent": joined.unknown,
    }
    return [line for line, failed in lines.items() if failed]
