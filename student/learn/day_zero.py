"""Which rows of a bootstrap are learnt, which are held out, and from which share on a teacher task counts as learnt.

Shapes: S steps, B rows of a step.
"""

import numpy as np
from numpy.typing import NDArray

_HELD_OUT = 10
"""Of the rows of a bootstrap one in this many is held out."""

_LEAST_EXPLAINED = 0.01
"""A share of a teacher task's variance. On 500 held-out rows a student explained below 0.006 of logits that were dealt
out to other rows, and above 0.9 of the logits of the rows themselves."""

_CHANCE = 9.0
"""Divided by n rows: a bound on the share that predictions explain by chance. It is at most the square of their
correlation with the targets, and chance gives a correlation above 3 * n ** -0.5 one time in 700."""


def held_out(rows: int) -> int:
    """How many of so many rows, the last ones, a bootstrap does not learn."""
    return rows // _HELD_OUT


def least_explained(rows: int) -> float:
    """The share of a teacher task's variance below which a bootstrap on so many rows has not learnt that task."""
    return max(_LEAST_EXPLAINED, _CHANCE / held_out(rows))


def passes(count: int, steps: int, rows: int, seed: int) -> NDArray[np.int64]:
    """The rows of `steps` steps [S, B]: all `count` of them in a random order, again and again."""
    random = np.random.Generator(np.random.PCG64(seed))
    count_of_passes = -(-steps * rows // count)
    index_SB: NDArray[np.int64] = np.concatenate([random.permutation(count) for _ in range(count_of_passes)])
    return index_SB[: steps * rows].reshape(steps, rows)
