"""What is known of an impression when it comes. Shapes: N impressions, T teacher tasks."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lab.study.study_log import StudyLog


class Arriving(NamedTuple):
    """N impressions as they come: features and teacher logits that are known then, for the predictions that are served.

    `known_N`: for each of them the first that comes when its labels are known.
    """

    log: StudyLog
    logit_NT: NDArray[np.float32]
    known_N: NDArray[np.intp]
