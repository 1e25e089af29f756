"""What is known of an impression when it comes. Shapes: N impressions, T teacher tasks."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lab.study.study_log import StudyLog


class Arriving(NamedTuple):
    """N impressions with the features and teacher logits that are known when they come, for served predictions.

    `known_N`: for each the place of the first impression that comes when its labels are known.
    """

    log: StudyLog
    logit_NT: NDArray[np.float32]
    known_N: NDArray[np.intp]
