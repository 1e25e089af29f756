"""What an example log has of the teacher, as arrays. Shapes: U unshown rows, T teacher tasks."""

import numpy as np
from numpy.typing import NDArray

from stream.log.logged_logits import LoggedLogit
from teacher_cache.cache.cache import usable
from teacher_cache.cache.unshown import UnshownRows


def decoded(logged: LoggedLogit, tasks: int) -> tuple[NDArray[np.float32], UnshownRows]:
    """The logits [T] of an example, NaN for a miss and for what is not `usable`; the unshown rows that are usable."""
    logit_T = np.full(tasks, np.nan, np.float32)
    if logged.logits is not None and len(logged.logits) == tasks:
        found_T = np.array(logged.logits, np.float64)
        if usable(found_T[None])[0]:
            logit_T = found_T.astype(np.float32)
    rows = [(features, logits) for features, logits in logged.unshown or () if len(logits) == tasks]
    logit_UT = np.array([logits for _, logits in rows], np.float64).reshape(-1, tasks)
    kept_U = usable(logit_UT)
    features = [row for (row, _), kept in zip(rows, kept_U, strict=True) if kept]
    return logit_T, UnshownRows(features, logit_UT[kept_U].astype(np.float32))
