"""Adam is torch's; the row-wise Adagrad moves touched rows only."""

import pytest
import torch

from student.learn.network.arm import Adam, RowAdagrad


def test_adam_takes_torchs_steps() -> None:
    own = torch.linspace(-1, 1, 7)
    theirs = own.clone().requires_grad_()
    adam, reference = Adam(own, 0.1), torch.optim.Adam([theirs], lr=0.1)
    for step in range(20):
        gradient_N = torch.sin(own * (step + 1))
        theirs.grad = gradient_N.clone()
        adam.step(gradient_N)
        reference.step()
    assert own.tolist() == pytest.approx(theirs.tolist(), abs=1e-5)


def test_steps_are_short_while_adam_warms_up() -> None:
    # Of equal gradients each step of Adam is as long as its learning rate.
    weight_N = torch.zeros(1)
    adam, lengths = Adam(weight_N, 0.1, warm_up=4), []
    for _ in range(6):
        before = float(weight_N)
        adam.step(torch.full((1,), 3.0))
        lengths.append(before - float(weight_N))
    assert lengths == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.1, 0.1], rel=1e-4)


def test_adagrad_by_hand() -> None:
    weight_RE = torch.zeros(3, 2)
    adagrad = RowAdagrad(weight_RE, 0.5)
    # Mean square (9 + 16) / 2 = 12.5; the step is 0.5 * g / sqrt(12.5)
    adagrad.step(torch.tensor([1]), torch.tensor([[3.0, 4.0]]))
    assert weight_RE[1].tolist() == pytest.approx([-0.5 * 3 / 12.5**0.5, -0.5 * 4 / 12.5**0.5])
    # The accumulator of the same row doubles: the same gradient moves it by 1 / sqrt(2) of that
    before = weight_RE[1].clone()
    adagrad.step(torch.tensor([1]), torch.tensor([[3.0, 4.0]]))
    assert (weight_RE[1] - before).tolist() == pytest.approx([-0.5 * 3 / 5, -0.5 * 4 / 5])


def test_only_touched_rows_change() -> None:
    weight_RE = torch.arange(12.0).reshape(4, 3)
    before = weight_RE.clone()
    adagrad = RowAdagrad(weight_RE, 0.1)
    adagrad.step(torch.tensor([0, 2]), torch.ones(2, 3))
    assert weight_RE[[1, 3]].tolist() == before[[1, 3]].tolist()
    assert (weight_RE[[0, 2]] < before[[0, 2]]).all()
    assert adagrad.tensors()["squares"].tolist() == [1, 0, 1, 0]


def test_a_row_without_a_gradient_stays() -> None:
    weight_RE = torch.ones(2, 2)
    RowAdagrad(weight_RE, 0.1).step(torch.tensor([0]), torch.zeros(1, 2))
    assert weight_RE.tolist() == [[1, 1], [1, 1]]
