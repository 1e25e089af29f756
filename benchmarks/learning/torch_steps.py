"""The steps alone: the learner's own, and as many of the same layers and heads in torch.nn and torch.optim."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple
from unittest import mock

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.learning.in_memory import learner_in_memory
from benchmarks.learning.rows import Bench, Measured, Spent, now, since
from student.learn.batch import Batch
from student.learn.network.arm import Arm, Gradient
from student.learn.network.model import Shape
from student.versions.served_tensors import embedding_rows


class Step(NamedTuple):
    """A step that an arm took: its rows as tensors in memory."""

    shape: Shape
    dense_BD: Tensor
    row_BC: Tensor
    label_KB: Sequence[Tensor]
    logit_AB: Sequence[Tensor]


def recorded_steps(bench: Bench) -> list[Step]:
    """Every step of both arms over the whole log, in order."""
    steps, take = [], Arm.gradient

    def recorded(arm: Arm, rows: Batch, *rest: Any) -> Gradient:
        columns = bench.setup.teacher_columns if arm.student.shape.distillation else ()
        logit_AB = [torch.from_numpy(rows.logit_BT[:, column]) for column in columns]
        row_BC = torch.from_numpy(embedding_rows(rows.category_BC, arm.student.shape.config.table_rows))
        dense_BD = torch.from_numpy(rows.dense_BD)
        steps.append(Step(arm.student.shape, dense_BD, row_BC, torch.from_numpy(rows.label_BK).unbind(1), logit_AB))
        return take(arm, rows, *rest)

    with mock.patch.object(Arm, "gradient", recorded):
        learner_in_memory(bench)
    return steps


def own_steps(bench: Bench) -> Measured:
    """The time within the steps of the learner's own arms."""
    turns: list[Spent] = []

    def timed(part: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*arguments: Any) -> Any:
            began = now()
            result = part(*arguments)
            turns.append(since(began))
            return result

        return wrapper

    gradient, descend = timed(Arm.gradient), timed(Arm.descend)
    with mock.patch.object(Arm, "gradient", gradient), mock.patch.object(Arm, "descend", descend):
        return learner_in_memory(bench)._replace(spent=Spent(*map(sum, zip(*turns, strict=True))))


class PlainStudent(nn.Module):
    """The same layers in plain torch.nn."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        config, layers = shape.config, []
        self.embedding = nn.Embedding(config.table_rows, config.embedding_dim, sparse=True)
        width = shape.dense_width + shape.categorical_width * config.embedding_dim
        for out in config.trunk:
            layers += [nn.Linear(width, out), nn.ReLU()]
            width = out
        self.trunk = nn.Sequential(*layers)
        self.towers = nn.ModuleList(nn.Sequential(nn.Linear(width, config.tower), nn.ReLU()) for _ in shape.tasks)
        self.heads = nn.ModuleList(nn.Linear(config.tower, 1) for _ in shape.tasks)
        names = [task.name for task in shape.tasks]
        self.twins = [names.index(d.student_task) for d in shape.distillation]
        self.teacher_heads = nn.ModuleList(nn.Linear(config.tower, 1) for _ in shape.distillation)

    def forward(self, dense_BD: Tensor, row_BC: Tensor) -> list[Tensor]:
        """Every head's value per row, the served ones first."""
        hidden_BH = self.trunk(torch.cat([dense_BD, self.embedding(row_BC).flatten(1)], 1))
        towers = [tower(hidden_BH) for tower in self.towers]
        served = [head(tower).squeeze(1) for head, tower in zip(self.heads, towers, strict=True)]
        heads = zip(self.teacher_heads, self.twins, strict=True)
        return served + [head(towers[twin]).squeeze(1) for head, twin in heads]


class PlainArm:
    """The same step with torch's own optimizers."""

    def __init__(self, shape: Shape, kinds: Sequence[str]) -> None:
        self._student, self._kinds = PlainStudent(shape), kinds
        dense = [weight for name, weight in self._student.named_parameters() if name != "embedding.weight"]
        self._optimizers = (
            torch.optim.Adam(dense, shape.config.learning_rate),
            torch.optim.Adagrad(self._student.embedding.parameters(), shape.config.embedding_learning_rate),
        )

    def step(self, step: Step) -> None:
        """Forward, backward, and both optimizers."""
        values = self._student(step.dense_BD, step.row_BC)
        targets = [*step.label_KB, *step.logit_AB]
        losses = [self._loss(*head) for head in zip(self._kinds[: len(values)], values, targets, strict=True)]
        loss = torch.stack(losses).sum()
        for optimizer in self._optimizers:
            optimizer.zero_grad()
        loss.backward()
        for optimizer in self._optimizers:
            optimizer.step()

    @staticmethod
    def _loss(kind: str, value_B: Tensor, target_B: Tensor) -> Tensor:
        present_B = ~target_B.isnan()
        measure = functional.binary_cross_entropy_with_logits if kind == "binary" else functional.mse_loss
        loss_B = measure(value_B, target_B.nan_to_num(), reduction="none")
        return (loss_B * present_B).sum() / present_B.sum().clamp(min=1)


def plain_steps(bench: Bench, steps: Sequence[Step]) -> Measured:
    """Every step again, its rows already tensors in memory."""
    kinds = [*(task.kind for task in bench.setup.tasks), *("regression" for _ in bench.setup.distillation)]
    arms = {bool(step.shape.distillation): PlainArm(step.shape, kinds) for step in steps[:2]}
    for step in steps[:2]:
        arms[bool(step.shape.distillation)].step(step)  # the first step of torch.optim imports its compiler
    began = now()
    for step in steps:
        arms[bool(step.shape.distillation)].step(step)
    return Measured(since(began), sum(len(batch) for batch, _ in bench.micro_batches()))
