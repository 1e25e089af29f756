"""Whether an output that should be a logit looks like none: a probability, as of many libraries, or a certainty."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.errors import GraftError
from teacher_cache.config import TeacherTask
from teacher_cache.teacher import Teacher

_SATURATED = 20.0  # a probability within 2e-9 of 0 or 1


def probability_warnings(
    teacher: Teacher, tasks: Sequence[TeacherTask], inputs: Mapping[str, NDArray[Any]]
) -> dict[str, str]:
    """Task -> what is odd of its output: all these rows have it within [0, 1], and not the same one, or most are sure.

    Nothing of rows that the teacher cannot score.
    """
    try:
        logit_BT = teacher.score(inputs)
    except GraftError:
        return {}
    found = {}
    for t, task in enumerate(tasks):
        low, high = float(np.min(logit_BT[:, t])), float(np.max(logit_BT[:, t]))
        sure = float(np.mean(np.abs(logit_BT[:, t]) > _SATURATED))
        if task.kind == "binary" and sure > 0.5:
            found[task.name] = (
                f"its output {task.output} is beyond {_SATURATED:g} in size on {sure:.0%} of {len(logit_BT)} rows: as "
                "a logit that is a certainty, of which a student learns little; export the model's own logit, or a "
                "smaller multiple of it"
            )
        if task.kind == "binary" and 0 <= low < high <= 1:
            found[task.name] = (
                f"its output {task.output} is from {low:.3g} to {high:.3g} on {len(logit_BT)} rows, which looks like a "
                "probability; a binary task needs the logit: docs/export-a-teacher.md tells how to export it"
            )
    return found
