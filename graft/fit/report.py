"""How well a fitted teacher does on the source's last rows, which it has not seen.

Shapes: B rows that are held out, T heads.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream.tasks import TaskKind
from student.evaluate.metrics import exact_auc
from teacher_cache.fit.source import Source, Split

_FEW_ROWS = 5_000
_NO_BETTER_AUC = 0.52


class TaskReport(NamedTuple):
    """How well one head does on the rows held out: `auc` of a binary one, the others of a regression.

    `rmse_of_mean`: what the mean of the learnt labels reaches. None where the labels are all alike, or there is none.
    """

    name: str
    kind: TaskKind
    auc: float | None = None
    rmse: float | None = None
    rmse_of_mean: float | None = None
    r2: float | None = None

    def line(self) -> str:
        """For people."""
        if self.kind == "binary":
            known = (
                f"AUC {self.auc:.4f}" if self.auc is not None else "AUC undefined, its labels there are of one class"
            )
            return f"{self.name}: {known}"
        if self.rmse is None or self.rmse_of_mean is None:
            return f"{self.name}: no label there"
        r2 = "undefined" if self.r2 is None else f"{self.r2:.4f}"
        return f"{self.name}: R2 {r2}, RMSE {self.rmse:.4g}, of the mean {self.rmse_of_mean:.4g}"

    def is_no_better(self) -> bool:
        """Whether it does hardly better than a constant."""
        if self.kind == "binary":
            return self.auc is not None and self.auc < _NO_BETTER_AUC
        return self.r2 is not None and self.r2 <= 0


class FitReport(NamedTuple):
    """How many rows were learnt, judged the epochs and were held out; how long it took; how well each head does."""

    learnt_rows: int
    judged_rows: int
    held_out_rows: int
    epochs: int
    seconds: float
    tasks: list[TaskReport]
    warnings: list[str]

    def lines(self) -> list[str]:
        """For people."""
        learnt = f"{self.learnt_rows:,} rows learnt in {self.epochs} epochs and {self.seconds:.1f} s"
        judged = f"{self.judged_rows:,} judged the epochs; on the last {self.held_out_rows:,}, which it has not seen"
        return [
            f"teacher: {learnt}, {judged}:",
            *(f"  {task.line()}" for task in self.tasks),
            *(f"  warning: {warning}" for warning in self.warnings),
        ]

    def summary(self) -> dict[str, Any]:
        """For JSON."""
        return {**self._asdict(), "tasks": [task._asdict() for task in self.tasks]}


def report_of(source: Source, split: Split, output_BT: NDArray[np.float32], epochs: int, seconds: float) -> FitReport:
    """The report, with a warning for what should not be relied on."""
    tasks = []
    for t, (head, kind) in enumerate(source.design.heads.items()):
        label_N = source.tables[f"labels.{head}"].astype(np.float32)
        label_B = label_N[split.used :]
        if kind == "binary":
            tasks.append(TaskReport(head, kind, auc=exact_auc(label_B, output_BT[:, t])))
        else:
            tasks.append(_regression(head, label_B, output_BT[:, t], float(np.nanmean(label_N[: split.learnt]))))
    warnings = [
        f"{task.name}: hardly better than the same value for every row" for task in tasks if task.is_no_better()
    ]
    rows = source.rows
    if rows < _FEW_ROWS:
        warnings.insert(0, f"{rows:,} rows are few: what stands here may be chance, and the teacher may know little")
    return FitReport(split.learnt, split.judged, rows - split.used, epochs, seconds, tasks, warnings)


def _regression(head: str, label_B: NDArray[np.float32], value_B: NDArray[np.float32], mean: float) -> TaskReport:
    known_B = ~np.isnan(label_B)
    if not known_B.any():
        return TaskReport(head, "regression")
    label_K, value_K = label_B[known_B].astype(np.float64), value_B[known_B].astype(np.float64)
    error, of_mean = np.mean((value_K - label_K) ** 2), np.mean((mean - label_K) ** 2)
    r2 = float(1 - error / of_mean) if of_mean > 0 else None
    return TaskReport(head, "regression", rmse=float(error**0.5), rmse_of_mean=float(of_mean**0.5), r2=r2)
