"""Trains a pair's teacher on its source rows alone. Same seed and rows, same weights.

Shapes: N rows, B rows of a batch, T heads.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from lab.pairs.source import Source, TeacherDesign, TeacherInput
from lab.pairs.teacher_network import TeacherNetwork
from student.evaluate.metrics import exact_auc
from teacher_cache.exported_teacher import one_thread

_HELD_OUT = 0.05  # the latest rows, never learnt
_UNKNOWN_USERS = 0.5  # share of the rows whose user is shown as unknown

Progress = Callable[[int, int], None]
"""Called with the steps done and the steps in all."""


class TeacherReport(NamedTuple):
    """How a teacher does on the latest source rows, which it did not learn; AUC per binary head.

    An AUC is None where the head's labels are all of one class.
    """

    learnt_rows: int
    held_out_rows: int
    auc: dict[str, float | None]
    auc_of_unknown_users: dict[str, float | None]


def train_teacher(source: Source, seed: int, progress: Progress) -> tuple[TeacherNetwork, TeacherReport]:
    """A network trained on all but the latest 5 % of the rows, and its report on those."""
    with one_thread():
        return _train(source, seed, progress)


def _train(source: Source, seed: int, progress: Progress) -> tuple[TeacherNetwork, TeacherReport]:
    torch.manual_seed(seed)
    tables = {name: torch.from_numpy(np.asarray(table)) for name, table in source.tables.items()}
    network = TeacherNetwork(
        source.design, {i.name: _scale(i, source) for i in source.design.inputs if i.codes is None}
    )
    learnt = source.rows - int(source.rows * _HELD_OUT)
    _learn(network, tables, learnt, torch.Generator().manual_seed(seed), progress)
    if network.taste is not None:
        network.taste.turn()
    held_out = torch.arange(learnt, source.rows)
    report = TeacherReport(
        learnt,
        len(held_out),
        _auc_per_head(network, tables, held_out, unknown=False),
        _auc_per_head(network, tables, held_out, unknown=True),
    )
    return network, report


def _learn(
    network: TeacherNetwork, tables: Mapping[str, Tensor], rows: int, random: torch.Generator, progress: Progress
) -> None:
    design = network.design
    steps = design.epochs * -(-rows // design.batch_rows)
    optimizer = torch.optim.Adam(network.parameters(), lr=design.learning_rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0 - step / (steps + 1))
    for step, chosen in enumerate(_batches(design, rows, random)):
        inputs = _inputs(design, tables, chosen, torch.rand(len(chosen), generator=random) < _UNKNOWN_USERS)
        loss = _loss(network, inputs, tables, chosen)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        progress(step + 1, steps)


def _batches(design: TeacherDesign, rows: int, random: torch.Generator) -> Iterator[Tensor]:
    for _ in range(design.epochs):
        yield from torch.split(torch.randperm(rows, generator=random), design.batch_rows)


def _loss(
    network: TeacherNetwork, inputs: Mapping[str, Tensor], tables: Mapping[str, Tensor], chosen: Tensor
) -> Tensor:
    output_BT = network(inputs)
    losses = []
    for t, (head, kind) in enumerate(network.design.heads.items()):
        label_B = tables[f"labels.{head}"][chosen]
        known_B = ~label_B.isnan()
        measure = functional.binary_cross_entropy_with_logits if kind == "binary" else functional.mse_loss
        losses.append(measure(output_BT[known_B, t], label_B[known_B]))
    if network.taste is not None:
        losses.append(network.taste.penalty(inputs))
    return torch.stack(losses).sum()


def _inputs(
    design: TeacherDesign, tables: Mapping[str, Tensor], chosen: Tensor, unknown_B: Tensor
) -> dict[str, Tensor]:
    """The teacher's inputs for the chosen rows; the history inputs of the rows in `unknown_B` have their defaults."""
    keys = {"rows": chosen, "users": tables["rows.user"][chosen].long(), "items": tables["rows.item"][chosen].long()}
    inputs = {}
    for spec in design.inputs:
        values = tables[f"{spec.table}.{spec.name}"][keys[spec.table]]
        values = values.float() if spec.codes is None else values.long()
        if spec.history:
            values = values.masked_fill(unknown_B, spec.default)
        inputs[spec.name] = values
    return inputs


def _scale(spec: TeacherInput, source: Source) -> tuple[float, float]:
    values = source.tables[f"{spec.table}.{spec.name}"].astype(np.float64)
    values = np.log1p(values) if spec.logarithm else values
    return float(values.mean()), float(values.std()) or 1.0


@torch.inference_mode()
def _auc_per_head(
    network: TeacherNetwork, tables: Mapping[str, Tensor], rows: Tensor, *, unknown: bool
) -> dict[str, float | None]:
    inputs = _inputs(network.design, tables, rows, torch.full((len(rows),), unknown))
    output_BT = network(inputs).numpy()
    return {
        head: exact_auc(tables[f"labels.{head}"][rows].numpy(), output_BT[:, t])
        for t, (head, kind) in enumerate(network.design.heads.items())
        if kind == "binary"
    }
