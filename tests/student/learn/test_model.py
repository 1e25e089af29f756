"""The student's tensors and what they depend on."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import linear

from student.learn.network.model import Inputs, Shape, Student
from student.versions.served_tensors import EMBEDDING, Layer


def shape(toy: Any, **changes: Any) -> Shape:
    return Shape(**{**Shape(toy.student, toy.tasks, toy.distillation, 4, 2)._asdict(), **changes})


def inputs() -> Inputs:
    random = torch.Generator().manual_seed(0)
    rows = [[3, 9], [9, 9], [20, 3], [3, 3], [20, 20]]
    return Inputs(torch.randn(5, 4, generator=random), torch.tensor(rows))


def moved(of: Student) -> Student:
    """With weights everywhere: heads start at 0, through which no slope goes."""
    of.flat += 0.1 * torch.randn(len(of.flat), generator=torch.Generator().manual_seed(1))
    return of


def values_by_autograd(of: Student, weights: Mapping[str, Tensor], embedding_BCE: Tensor) -> Tensor:
    """The values of every head [B, O] in torch's own words, with ExFM's way to scale a slope on its way back."""

    def apply(layer: Layer, input_BI: Tensor) -> Tensor:
        return linear(input_BI, weights[layer.weight], weights[layer.bias])

    def scaled(value: Tensor, scale: float) -> Tensor:
        return value.detach() + scale * (value - value.detach())

    hidden_BH = first_BI = torch.cat([inputs().dense_BD, embedding_BCE.flatten(1)], 1)
    for layer in of.layers.cross:
        hidden_BH = first_BI * apply(layer, hidden_BH) + hidden_BH
    for layer in of.layers.trunk:
        hidden_BH = apply(layer, hidden_BH).relu()
    towers = {task: apply(layer, hidden_BH).relu() for task, layer in of.layers.towers.items()}
    heads = [apply(layer, towers[task]) for task, layer in of.layers.heads.items()]
    for config in of.shape.distillation:
        tower_BU = scaled(towers[config.student_task], config.gradient_scale)
        heads.append(apply(of.teacher_heads[config.teacher_task], tower_BU))
    return torch.cat(heads, dim=1)


@pytest.mark.parametrize(
    "changes",
    [{}, {"distillation": ()}, {"cross": 2}, {"scale": 3.0}, {"scale": 0.0, "cross": 1}],
    ids=str,
)
def test_the_gradient_is_torchs_own(toy: Any, changes: dict[str, Any]) -> None:
    head = {"gradient_scale": changes.get("scale", 1.0)}
    heads = tuple(d.model_copy(update=head) for d in changes.get("distillation", toy.distillation))
    config = toy.student.model_copy(update={"cross_layers": changes.get("cross", 0)})
    student = moved(Student(shape(toy, config=config, distillation=heads)))
    leaves = {name: weight.clone().requires_grad_() for name, weight in student.dense.items()}
    embedding_BCE = student.embedding_RE[inputs().row_BC].requires_grad_()
    expected_BO = values_by_autograd(student, leaves, embedding_BCE)
    slope_BO = torch.randn(expected_BO.shape, generator=torch.Generator().manual_seed(2))
    found = student.forward(inputs())
    torch.testing.assert_close(found.value_BO, expected_BO)

    of_embedding, *of_weights = torch.autograd.grad(
        (expected_BO * slope_BO).sum(), [embedding_BCE, *leaves.values()], allow_unused=True, materialize_grads=True
    )
    gradient_V, gradient_BCE = student.gradient(found, slope_BO)
    torch.testing.assert_close(gradient_BCE, of_embedding)
    torch.testing.assert_close(gradient_V, torch.cat([each.flatten() for each in of_weights]))


def test_the_tensors_are_those_of_the_layout(toy: Any) -> None:
    sizes = {name: tuple(tensor.shape) for name, tensor in Student(shape(toy)).tensors().items()}
    width = 4 + 2 * 3
    assert sizes[EMBEDDING] == (64, 3)
    assert sizes["trunk.0.weight"] == (8, width)
    assert sizes["trunk.1.bias"] == (4,)
    assert sizes["tower.rating.weight"] == (4, 4)
    assert sizes["head.hidden.weight"] == (1, 4)
    assert {name for name in sizes if name.startswith("teacher_head") and "bias" in name} == {
        f"teacher_head.{task}.bias" for task in ("like", "rating")
    }


def test_a_weight_starts_the_same_whatever_else_there_is(toy: Any) -> None:
    full = Student(shape(toy)).tensors()
    bare = Student(shape(toy, tasks=toy.tasks[:1], distillation=())).tensors()
    assert bare.keys() < full.keys()
    assert all(torch.equal(tensor, full[name]) for name, tensor in bare.items())


def test_a_cross_layer_multiplies_the_inputs_with_what_it_makes_of_them(toy: Any) -> None:
    """DCN-v2, eq. 1, by hand: x0 = (1, 2), two layers of W = [[0, 1], [1, 1]], b = (1, 0)."""
    config = toy.student.model_copy(update={"cross_layers": 2, "trunk": [2], "tower": 1, "embedding_dim": 1})
    student = Student(Shape(config, toy.tasks[:1], (), 1, 1))
    for i in range(2):
        student.dense[f"trunk.cross.{i}.weight"].copy_(torch.tensor([[0.0, 1.0], [1.0, 1.0]]))
        student.dense[f"trunk.cross.{i}.bias"].copy_(torch.tensor([1.0, 0.0]))
    student.dense["trunk.0.weight"].copy_(torch.eye(2))
    student.dense["tower.like.weight"].copy_(torch.tensor([[1.0, 100.0]]))
    student.dense["head.like.weight"].fill_(1)
    student.embedding_RE[0] = 2
    outputs = student.forward(Inputs(torch.tensor([[1.0]]), torch.tensor([[0]])))
    # x1 = (1, 2) * (2 + 1, 1 + 2) + (1, 2) = (4, 8); x2 = (1, 2) * (8 + 1, 4 + 8) + (4, 8) = (13, 32)
    assert outputs.value_BO.tolist() == [[13 + 100 * 32]]


def test_another_seed_gives_other_weights(toy: Any) -> None:
    other = shape(toy, config=toy.student.model_copy(update={"seed": 8}))
    name = "trunk.0.weight"
    assert not torch.equal(Student(shape(toy)).tensors()[name], Student(other).tensors()[name])


def test_a_step_on_the_flat_vector_moves_the_named_weights(toy: Any) -> None:
    student = Student(shape(toy))
    student.flat += 1
    assert student.tensors()["head.like.bias"].tolist() == [1]
