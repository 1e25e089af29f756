"""Whether an output that should be a logit looks like a probability, as classifiers of many libraries give it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.errors import GraftError
from teacher_cache.config import TeacherTask
from teacher_cache.teacher import Teacher


def probability_warnings(
    teacher: Teacher, tasks: Sequence[TeacherTask], inputs: Mapping[str, NDArray[Any]]
) -> dict[str, str]:
    """Task -> what is odd of its output: all these rows have it within [0, 1], and not the same one.

    Nothing of rows that the teacher cannot score.
    """
    try:
        logit_BT = teacher.score(inputs)
    except GraftError:
        return {}
    found = {}
    for t, task in enumerate(tasks):
        low, high = float(np.min(logit_BT[:, t])), float(np.max(logit_BT[:, t]))
        if task.kind == "binary" and 0 <= low < high <= 1:
            found[task.name] = (
                f"its output {task.output} is from {low:.3g} to {high:.3g} on {len(logit_BT)} rows, which looks like a "
                "probability; a binary task needs the logit: docs/export-a-teacher.md tells how to export it"
            )
    return found
