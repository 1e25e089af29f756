"""What is known of the mean of bounded differences at any moment, however often one looks.

For differences d in [-c, c] with conditional means m, given all that came before, and each lambda in [0, 1 / c):

    exp(lambda * (sum d - sum m) - psi(lambda) * sum d^2),    psi(lambda) = (-ln(1 - c * lambda) - c * lambda) / c^2

is a supermartingale that starts at 1 (Fan, Grama & Liu 2015, lemma 4.1; Howard et al. 2021; Choe & Ramdas, arXiv
2110.00115, theorem 2). By Ville's inequality it passes 1 / a with a chance of at most a, ever. The differences may
drift and depend on each other: nothing is assumed but that each is known before the next one's mean is.

Shapes: A means that are tested, G values of lambda.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_SHARES_G = 0.64 * 0.5 ** np.arange(8)
"""lambda * c: from large differences that few examples show to small ones that take a hundred thousand."""

_FIRST = 64.0
"""Examples; see `_mass_after`."""


def interval(sums_A3: Floats, scale_A: Floats, error: float) -> Floats:
    """Low and high ends [A, 2] of the average conditional mean: both hold at all times but with a chance of `error`.

    `sums_A3`: how many differences, their sum, the sum of their squares; `scale_A`: c. Infinite where there are none.
    """
    count_A1, sum_A1, square_A1 = (sums_A3[:, i, None] for i in range(3))
    lambda_AG, psi_AG = _lambdas(scale_A)
    with np.errstate(divide="ignore", invalid="ignore"):
        reach_A = ((np.log(2 * len(_SHARES_G) / error) + psi_AG * square_A1) / lambda_AG).min(axis=1) / count_A1[:, 0]
        mean_A = sum_A1[:, 0] / count_A1[:, 0]
    ends_A2 = np.stack([mean_A - reach_A, mean_A + reach_A], axis=1)
    return np.where(count_A1 > 0, ends_A2, [-np.inf, np.inf])


class Evidence:
    """For each of A means the evidence that it has risen above its bound, at whatever moment.

    It is a mixture of the supermartingales above, over lambdas and over the example after which the mean rose (a
    weighted Shiryaev-Roberts statistic), so a long time without a rise does not delay the detection of one much. While
    every conditional mean is at most its bound, `log()` passes ln(1 / a) with a chance of at most a, ever.
    """

    def __init__(self, means: int) -> None:
        self._log_AG = np.full((means, len(_SHARES_G)), -np.inf)
        self._count_A = np.zeros(means)

    def add(self, sums_A3: Floats, bound_A: Floats, scale_A: Floats) -> None:
        """Take in what came since the last time: the sums as in `interval`, all differences at least -c."""
        count_A, sum_A, square_A = sums_A3.T
        lambda_AG, psi_AG = _lambdas(scale_A)
        start_A = _mass_after(self._count_A) - _mass_after(self._count_A + count_A)
        with np.errstate(divide="ignore"):
            begun_AG = np.logaddexp(self._log_AG, np.log(start_A)[:, None])
        risen_A = sum_A - count_A * bound_A
        self._log_AG[...] = begun_AG + lambda_AG * risen_A[:, None] - psi_AG * square_A[:, None]
        self._count_A += count_A

    def log(self) -> Floats:
        """The evidence, [A], in nats; -inf before the first difference."""
        log_A: Floats = np.logaddexp.reduce(self._log_AG, axis=1) - np.log(len(_SHARES_G))
        return log_A

    def tensors(self) -> dict[str, NDArray[Any]]:
        """The whole state, not copied."""
        return {"evidence": self._log_AG, "count": self._count_A}


def _lambdas(scale_A: Floats) -> tuple[Floats, Floats]:
    """Each lambda and its psi, [A, G]."""
    lambda_AG = _SHARES_G / scale_A[:, None]
    psi_AG = (-np.log1p(-_SHARES_G) - _SHARES_G) / scale_A[:, None] ** 2
    return lambda_AG, psi_AG


def _mass_after(count_A: Floats) -> Floats:
    """Of the prior on the example after which a mean rises, the mass beyond `count`.

    It falls so slowly that a rise after a million examples takes 12 nats more to be seen than one at the start.
    """
    mass_A: Floats = 1 / (1 + np.log1p(count_A / _FIRST))
    return mass_A
