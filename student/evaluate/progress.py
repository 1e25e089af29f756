"""Reports the learner's progressive metrics: in the history, in log lines and as gauges."""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from prometheus_client import Gauge

from student.evaluate.history import MetricsHistory, defined
from student.versions.manifest import ArmMetrics, Metrics

METRIC = Gauge(
    "graft_student_progressive_metric",
    "Metrics of predictions made before learning",
    ["metric", "slice", "task", "arm"],
)

EVERY_EXAMPLES = 500
"""A point of the history stands at the first step that reaches a multiple of this."""

_log = logging.getLogger(__name__)


class Evaluation(Protocol):
    """Has judged some arms."""

    def whole(self) -> Metrics:
        """Over all examples."""
        ...

    def slices(self) -> dict[str, Metrics]:
        """Over every slice."""
        ...


class Progress:
    """Reports evaluations while the learner goes on, all arms together."""

    def __init__(self, folder: Path, examples: int, evaluations: Sequence[Evaluation]) -> None:
        """Go on after `examples`; `folder` holds the history."""
        self._history = MetricsHistory(folder, examples)
        self._evaluations = evaluations
        self._examples = examples
        self._told = self._whole()
        _log.info("progress lines have arm=loss since the line before or this start/loss of all/mean prediction/AUC")

    def update(self, examples: int) -> None:
        """After a step: add a point if it reached a multiple of `EVERY_EXAMPLES`, log lines if a power of two."""
        before, self._examples = self._examples, examples
        if examples // EVERY_EXAMPLES > before // EVERY_EXAMPLES:
            self._history.add(examples, self._slices())
        if examples.bit_length() > before.bit_length():
            self._log(examples)

    def publish(self) -> dict[str, Metrics]:
        """Write the history and set the gauges, just before a version is published; the metrics of every slice."""
        self._history.flush()
        slices = self._slices()
        set_gauges(slices)
        return slices

    def _whole(self) -> Metrics:
        return _together([evaluation.whole() for evaluation in self._evaluations])

    def _slices(self) -> dict[str, Metrics]:
        each = [evaluation.slices() for evaluation in self._evaluations]
        return {name: _together([slices[name] for slices in each]) for name in each[0]}

    def _log(self, examples: int) -> None:
        whole = self._whole()
        for line in progress_lines(examples, self._told, whole):
            _log.info("%s", line)
        self._told = whole


def _together(each: Sequence[Metrics]) -> Metrics:
    """The arms of all, task by task."""
    return {task: {arm: found for metrics in each for arm, found in metrics[task].items()} for task in each[0]}


def progress_lines(examples: int, before: Metrics, now: Metrics) -> Iterator[str]:
    """A line per task, in the manner of Vowpal Wabbit's: losses since `before` and of all, predictions, AUC.

    Losses are log loss (nats) or squared error.
    """
    for task, arms in now.items():
        known = before.get(task, {})
        parts = [f"{arm}={_line_part(known.get(arm), metrics)}" for arm, metrics in arms.items()]
        if parts:
            label = next(iter(arms.values())).label_mean
            yield " ".join([f"progress examples={examples} task={task} label={_short(label)}", *parts])


def set_gauges(slices: dict[str, Metrics]) -> None:
    """Set the gauge of every metric that is defined, of every slice, task and arm."""
    for task, arm, name, metric, value in defined(slices):
        METRIC.labels(metric, name, task, arm).set(value)


def _line_part(before: ArmMetrics | None, now: ArmMetrics) -> str:
    values = [_loss_since(before, now), _loss(now), now.prediction_mean]
    if now.positives is not None:
        values.append(now.auc)
    drawn = "" if now.auc_against_drawn is None else f"({_short(now.auc_against_drawn)} against drawn)"
    return "/".join(map(_short, values)) + drawn


def _loss_since(before: ArmMetrics | None, now: ArmMetrics) -> float | None:
    """The mean loss of the examples counted since `before`."""
    if before is None:
        return _loss(now)
    count = now.count - before.count
    return (_loss(now) * now.count - _loss(before) * before.count) / count if count else None


def _loss(metrics: ArmMetrics) -> float:
    if metrics.log_loss is not None:
        return metrics.log_loss
    assert metrics.rmse is not None
    return metrics.rmse**2


def _short(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
