"""Adam on the dense weights, row-wise Adagrad on the embedding table: in place, deterministic, with plain state.

torch.optim would do for the dense weights, but its first step imports the compiler (about 2 s), and it has no Adagrad
that keeps one number per row and leaves untouched rows alone.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

_BETA1, _BETA2, _EPSILON = 0.9, 0.999, 1e-8

WARM_UP = round(2 / (1 - _BETA2))
"""Steps until which Adam's second moments are of few gradients: a step is then nearly as long as the learning rate,
whatever the labels say (Ma and Yarats 2021, On the adequacy of untuned warmup for adaptive optimization)."""


class Adam:
    """Adam (Kingma & Ba 2015, algorithm 1) on one flat vector of all dense weights.

    The learning rate rises evenly over `warm_up` steps: 1 for weights that have learnt nothing yet.
    """

    def __init__(self, weight_N: Tensor, learning_rate: float, warm_up: int = 1) -> None:
        self._weight_N = weight_N
        self._learning_rate = learning_rate
        self._warm_up = warm_up
        self._first_N = torch.zeros_like(weight_N)
        self._second_N = torch.zeros_like(weight_N)
        self._steps = torch.zeros(1, dtype=torch.int64)  # on the CPU, which reads it

    def step(self, gradient_N: Tensor) -> None:
        """Move the weights one step down `gradient_N`."""
        self._steps += 1
        steps = int(self._steps)
        self._first_N.lerp_(gradient_N, 1 - _BETA1)
        self._second_N.mul_(_BETA2).addcmul_(gradient_N, gradient_N, value=1 - _BETA2)
        size = self._learning_rate * min(steps / self._warm_up, 1.0) / (1 - _BETA1**steps)
        scale_N = self._second_N.sqrt().div_((1 - _BETA2**steps) ** 0.5).add_(_EPSILON)
        self._weight_N.addcdiv_(self._first_N, scale_N, value=-size)

    def tensors(self) -> dict[str, Tensor]:
        """The whole state, not copied."""
        return {"first": self._first_N, "second": self._second_N, "steps": self._steps}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over a state that `tensors` gave."""
        for name, own in self.tensors().items():
            own.copy_(tensors[name])


class RowAdagrad:
    """Adagrad (Duchi et al. 2011) with one accumulator per row of a table [R, E]: the mean of its squared gradients."""

    def __init__(self, weight_RE: Tensor, learning_rate: float) -> None:
        self._weight_RE = weight_RE
        self._learning_rate = learning_rate
        self._squares_R = torch.zeros(len(weight_RE), device=weight_RE.device)

    def step(self, row_N: Tensor, gradient_NE: Tensor) -> None:
        """Move the rows `row_N` (distinct); no other row changes."""
        squares_N = self._squares_R[row_N] + gradient_NE.square().mean(dim=1)
        self._squares_R[row_N] = squares_N
        step_NE = gradient_NE * (self._learning_rate / (squares_N.sqrt() + _EPSILON)).unsqueeze(1)
        self._weight_RE[row_N] -= step_NE

    def tensors(self) -> dict[str, Tensor]:
        """The whole state, not copied."""
        return {"squares": self._squares_R}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over a state that `tensors` gave."""
        self._squares_R.copy_(tensors["squares"])
