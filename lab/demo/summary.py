"""report/summary.json, and what makes a demo fail."""

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from lab.demo.curves import ARMS
from student.versions.manifest import Metrics


class TaskAuc(BaseModel):
    """Progressive AUC of each arm on one binary task, in [0, 1]; None where an arm has no prediction for it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    student: float | None
    control: float | None
    teacher: float | None
    item_mean: float | None


class Summary(BaseModel):
    """The demo in numbers. `examples` counts records on the topic: a doubled one counts twice."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: str
    impressions: int
    examples: int
    dead_letters: int
    requests: int
    failed_requests: int
    swaps: int
    score_p50_ms: float | None
    score_p99_ms: float | None
    cache_hit_rate: float | None
    auc: dict[str, TaskAuc]
    seconds: float


class Joined(BaseModel):
    """What became of the impressions sent: `examples` records in all, of impressions missing, doubled and unknown."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    impressions: int
    examples: int
    missing: int
    doubled: int
    unknown: int


def auc_of(metrics: Metrics, binary_tasks: Sequence[str]) -> dict[str, TaskAuc]:
    """The AUC of every arm on each of `binary_tasks`."""
    arms = {task: metrics.get(task, {}) for task in binary_tasks}
    return {
        task: TaskAuc(**{arm: by_arm[arm].auc if arm in by_arm else None for arm in ARMS})
        for task, by_arm in arms.items()
    }


def faults(summary: Summary, joined: Joined) -> list[str]:
    """Why the demo failed, one line each; empty when every request was answered and each impression joined once."""
    lines: list[str] = []
    if summary.requests == 0:
        lines.append("no score request was answered: the scorer never became ready")
    if summary.failed_requests:
        lines.append(f"{summary.failed_requests} of {summary.requests} score requests failed; 0 are allowed")
    if joined.missing:
        lines.append(f"{joined.missing} of {joined.impressions} impressions did not become an example")
    if joined.doubled:
        lines.append(f"{joined.doubled} examples came a second time; each impression must become exactly one")
    if joined.unknown:
        lines.append(f"{joined.unknown} examples have the id of no impression that was sent")
    return lines
