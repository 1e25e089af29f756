"""How sure a difference is: the users of the log drawn again and again, with replacement.

Shapes: N examples, G groups of equal scores, R draws.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from stream.tasks import TaskKind

DRAWS = 200
FEWEST_USERS = 20
"""With fewer users there is no interval."""
_SEED = 20_260_101


class UserBootstrap:
    """Scores on the same `DRAWS` draws of the users (Efron 1979): what two models differ in, on each draw."""

    def __init__(self, user_ids: Sequence[int | str], weight_N: NDArray[np.float32] | None = None) -> None:
        """`weight_N`: as how many rows each of the N examples counts; None: as one."""
        self._weight_N = weight_N
        number: dict[int | str, int] = {}
        self._user_N = np.array([number.setdefault(user_id, len(number)) for user_id in user_ids], np.intp)
        self.users = len(number)
        random = np.random.default_rng(_SEED)
        even = np.full(self.users, 1 / max(1, self.users))
        self._times_RU = random.multinomial(self.users, even, DRAWS).astype(np.float32)

    def scores(
        self, kind: TaskKind, label_N: NDArray[np.float32], value_N: NDArray[np.float32], member_N: NDArray[np.bool_]
    ) -> NDArray[np.float64]:
        """The AUC or RMSE of the members on all users, then on each draw [1 + R]; NaN where it is undefined."""
        row_B = np.flatnonzero(member_N & np.isfinite(label_N) & np.isfinite(value_N))
        if kind == "binary":
            row_B = row_B[np.argsort(value_N[row_B], kind="stable")]
        draws_RB = self._times_RU[:, self._user_N[row_B]]
        weight_RB = np.concatenate([np.ones((1, len(row_B)), np.float32), draws_RB])
        if self._weight_N is not None:
            weight_RB *= self._weight_N[row_B]
        with np.errstate(invalid="ignore", divide="ignore"):
            if kind == "binary":
                return _auc(label_N[row_B], value_N[row_B], weight_RB)
            square_B = (label_N[row_B].astype(np.float64) - value_N[row_B]) ** 2
            return np.asarray(np.sqrt(weight_RB @ square_B / weight_RB.sum(axis=1)))


def _auc(
    label_B: NDArray[np.float32], value_B: NDArray[np.float32], weight_RB: NDArray[np.float32]
) -> NDArray[np.float64]:
    """The share of pairs in the right order, ties half, of rows in the order of their value, for each weighting."""
    if not len(value_B):
        return np.full(len(weight_RB), np.nan)
    positive_RG = weight_RB * label_B
    negative_RG = weight_RB - positive_RG
    first_G = np.flatnonzero(np.concatenate([[True], value_B[1:] != value_B[:-1]]))
    if len(first_G) < len(value_B):
        positive_RG, negative_RG = (np.add.reduceat(of, first_G, axis=1) for of in (positive_RG, negative_RG))
    below_RG = np.cumsum(negative_RG, axis=1)  # whole numbers and halves: exact in float32 up to 8 million rows
    positives_R, negatives_R = positive_RG.sum(axis=1, dtype=np.float64), below_RG[:, -1].astype(np.float64)
    below_RG -= negative_RG / 2
    return np.asarray(np.einsum("rg,rg->r", positive_RG, below_RG, dtype=np.float64) / (positives_R * negatives_R))
