"""A log as arrays, for models that are no student.

Shapes: N examples, D dense columns, C categorical columns, K tasks, T teacher tasks.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lab.study.study_log import StudyLog
from student.learn.batch import encoded
from student.learn.setup import LearnerSetup
from student.versions.inputs import embedding_rows
from student.versions.served_posterior import seen_of


class LogArrays(NamedTuple):
    """What a plain model reads, as the learner encodes it. NaN: no label, no logit."""

    binary_K: NDArray[np.bool_]
    dense_ND: NDArray[np.float32]
    table_row_NC: NDArray[np.int64]
    user_N: NDArray[np.intp]
    """Users numbered from 0 in the order in which they come; so are the items."""
    item_N: NDArray[np.intp]
    label_NK: NDArray[np.float64]
    logit_NT: NDArray[np.float64]
    weight_N: NDArray[np.float64]
    """As how many impressions each example counts."""

    @property
    def rows(self) -> int:
        """N."""
        return len(self.user_N)

    @property
    def entities(self) -> tuple[int, int]:
        """How many users and how many items there are."""
        return int(self.user_N.max(initial=-1)) + 1, int(self.item_N.max(initial=-1)) + 1

    def places(self) -> NDArray[np.intp]:
        """For each example where all, its user and its item stand in one list of them [N, 3]: all, users, items."""
        users, _ = self.entities
        return np.stack([np.zeros(self.rows, np.intp), 1 + self.user_N, 1 + users + self.item_N], axis=1)


def arrays_of(setup: LearnerSetup, log: StudyLog, logit_NT: NDArray[np.float32]) -> LogArrays:
    """The whole log with the teacher's logits of it; without its profiles, as the control sees the dense columns."""
    batch = encoded(setup, log.examples, logit_NT)
    seen_D = seen_of(setup.spec, sees_teacher=False) > 0
    return LogArrays(
        binary_K=np.array([task.kind == "binary" for task in setup.tasks]),
        dense_ND=batch.dense_BD[:, seen_D],
        table_row_NC=embedding_rows(batch.category_BC, setup.student.table_rows),
        user_N=_numbered(example.user_id for example in log.examples),
        item_N=_numbered(example.item_id for example in log.examples),
        label_NK=batch.label_BK.astype(np.float64),
        logit_NT=logit_NT.astype(np.float64),
        weight_N=log.weights.astype(np.float64),
    )


def _numbered(ids: Iterable[int | str]) -> NDArray[np.intp]:
    number: dict[int | str, int] = {}
    return np.array([number.setdefault(one, len(number)) for one in ids], np.intp)
