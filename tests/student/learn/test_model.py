"""The student's tensors and what they depend on."""

from typing import Any

import torch

from student.learn.model import Inputs, Shape, Student, scale_gradient
from student.versions.served_tensors import EMBEDDING


def shape(toy: Any, **changes: Any) -> Shape:
    return Shape(**{**Shape(toy.student, toy.tasks, toy.distillation, 4, 2)._asdict(), **changes})


def inputs() -> Inputs:
    random = torch.Generator().manual_seed(0)
    return Inputs(
        torch.randn(5, 4, generator=random),
        torch.tensor([3, 9, 20]),
        torch.tensor([[0, 1], [1, 1], [2, 0], [0, 0], [2, 2]]),
    )


def test_the_tensors_are_those_of_the_layout(toy: Any) -> None:
    sizes = {name: tuple(tensor.shape) for name, tensor in Student(shape(toy)).tensors().items()}
    width = 4 + 2 * 3
    assert sizes[EMBEDDING] == (64, 3)
    assert sizes["trunk.0.weight"] == (8, width)
    assert sizes["trunk.1.bias"] == (4,)
    assert sizes["tower.rating.weight"] == (4, 4)
    assert sizes["head.hidden.weight"] == (1, 4)
    assert {name for name in sizes if name.startswith("teacher_tower")} == {
        "teacher_tower.finish.weight",
        "teacher_tower.finish.bias",
    }
    assert {name for name in sizes if name.startswith("teacher_head") and "bias" in name} == {
        f"teacher_head.{task}.bias" for task in ("finish", "like", "rating")
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
    with torch.no_grad():
        for i in range(2):
            student.dense[f"trunk.cross.{i}.weight"].copy_(torch.tensor([[0.0, 1.0], [1.0, 1.0]]))
            student.dense[f"trunk.cross.{i}.bias"].copy_(torch.tensor([1.0, 0.0]))
        student.dense["trunk.0.weight"].copy_(torch.eye(2))
        student.dense["tower.like.weight"].copy_(torch.tensor([[1.0, 100.0]]))
        student.dense["head.like.weight"].fill_(1)
    inputs = Inputs(torch.tensor([[1.0]]), torch.tensor([5]), torch.tensor([[0]]))
    outputs = student.forward(inputs, torch.tensor([[2.0]]))
    # x1 = (1, 2) * (2 + 1, 1 + 2) + (1, 2) = (4, 8); x2 = (1, 2) * (8 + 1, 4 + 8) + (4, 8) = (13, 32)
    assert outputs.served_KB[0].tolist() == [13 + 100 * 32]


def test_another_seed_gives_other_weights(toy: Any) -> None:
    other = shape(toy, config=toy.student.model_copy(update={"seed": 8}))
    name = "trunk.0.weight"
    assert not torch.equal(Student(shape(toy)).tensors()[name], Student(other).tensors()[name])


def test_a_step_on_the_flat_vector_moves_the_named_weights(toy: Any) -> None:
    student = Student(shape(toy))
    with torch.no_grad():
        student.flat += 1
    assert student.tensors()["head.like.bias"].tolist() == [1]


def test_a_scaled_gradient_leaves_the_value() -> None:
    value_B = torch.tensor([0.3, -2.0], requires_grad=True)
    scaled_B = scale_gradient(value_B, 5.0)
    scaled_B.sum().backward()
    assert scaled_B.tolist() == value_B.tolist()
    assert value_B.grad is not None
    assert value_B.grad.tolist() == [5, 5]


def test_a_gradient_scale_scales_everything_below_the_auxiliary_head_and_not_the_head(toy: Any) -> None:
    def gradients(scale: float) -> dict[str, torch.Tensor]:
        heads = tuple(d.model_copy(update={"gradient_scale": scale}) for d in toy.distillation[:2])
        student = Student(shape(toy, distillation=heads))
        with torch.no_grad():
            for task in ("finish", "like"):
                student.dense[f"teacher_head.{task}.weight"].fill_(1)
        outputs = student.forward(inputs(), student.embedding_RE[inputs().row_N])
        loss = torch.stack(outputs.auxiliary_AB).square().sum()
        values = torch.autograd.grad(loss, list(student.dense.values()), allow_unused=True, materialize_grads=True)
        return dict(zip(student.dense, values, strict=True))

    plain, scaled = gradients(1.0), gradients(3.0)
    for name in ("trunk.0.weight", "tower.like.weight"):
        assert plain[name].any()
        torch.testing.assert_close(scaled[name], 3 * plain[name])
    for name in ("teacher_head.like.weight", "teacher_head.finish.weight", "teacher_tower.finish.weight"):
        assert plain[name].any()
        torch.testing.assert_close(scaled[name], plain[name])
