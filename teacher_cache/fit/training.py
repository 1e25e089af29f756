"""Trains a teacher on source rows alone. Same seed and rows, same weights.

Shapes: N rows, B rows of a batch, T heads.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from teacher_cache.fit.network import Scale, TeacherNetwork
from teacher_cache.fit.source import DesignInput, Source, Split, TeacherDesign

_UNKNOWN_USERS = 0.5  # share of the rows whose user is shown as unknown
_PATIENCE = 2  # epochs without a better one after which learning ends
_ROWS_AT_ONCE = 1 << 16

Progress = Callable[[int, int], None]
"""Called with the steps done and the most steps there may be."""


class Trained(NamedTuple):
    """The network after its best epoch, which is the last one where no rows judge; and how many epochs it took."""

    network: TeacherNetwork
    epochs: int


def train(source: Source, split: Split, seed: int, progress: Progress) -> Trained:
    """A network that has learnt the first rows; with rows that judge it ends where these are predicted no better."""
    with _one_thread():
        torch.manual_seed(seed)
        network = TeacherNetwork(
            source.design,
            {i.name: _scale(i, source) for i in source.design.inputs if i.codes is None},
            _label_scales(source, split.learnt) if source.design.scale_labels else {},
        )
        epochs = _learn(network, _tensors(source), split, torch.Generator().manual_seed(seed), progress)
        if network.taste is not None:
            network.taste.turn()
        return Trained(network, epochs)


@torch.inference_mode()
def predict(network: TeacherNetwork, source: Source, rows: range, *, unknown: bool = False) -> NDArray[np.float32]:
    """The network's outputs for these rows, [B, T]; with `unknown` as if it had never seen their users."""
    with _one_thread():
        tables = _tensors(source)
        found = [
            network(_inputs(network.design, tables, chosen, torch.full((len(chosen),), unknown))).numpy()
            for chosen in torch.split(torch.arange(rows.start, rows.stop), _ROWS_AT_ONCE)
        ]
    outputs: NDArray[np.float32] = np.concatenate(found)
    return outputs


def _tensors(source: Source) -> dict[str, Tensor]:
    return {name: torch.from_numpy(np.asarray(table)) for name, table in source.tables.items()}


def _learn(
    network: TeacherNetwork, tables: Mapping[str, Tensor], split: Split, random: torch.Generator, progress: Progress
) -> int:
    """Learn epoch by epoch; how many there were."""
    design = network.design
    steps = design.epochs * -(-split.learnt // design.batch_rows)
    optimizer = torch.optim.Adam(network.parameters(), lr=design.learning_rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0 - step / (steps + 1))
    best = _Best(network)
    step = epoch = 0
    while epoch < design.epochs:
        epoch += 1
        for chosen in torch.split(torch.randperm(split.learnt, generator=random), design.batch_rows):
            inputs = _inputs(design, tables, chosen, torch.rand(len(chosen), generator=random) < _UNKNOWN_USERS)
            loss = _loss(network, inputs, tables, chosen)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            step += 1
            progress(step, steps)
        if split.judged and not best.goes_on(_judged(network, tables, range(split.learnt, split.used))):
            break
    best.take()
    return epoch


class _Best:
    """The weights of the epoch with the least loss on the rows that judge; without such rows the weights stay."""

    def __init__(self, network: TeacherNetwork) -> None:
        self._network = network
        self._weights: dict[str, Any] | None = None
        self._loss = float("inf")
        self._worse = 0

    def goes_on(self, loss: float) -> bool:
        """Whether another epoch may be better, after one with this loss."""
        self._worse += 1
        if loss < self._loss:
            self._loss, self._worse = loss, 0
            self._weights = deepcopy(self._network.state_dict())
        return self._worse < _PATIENCE

    def take(self) -> None:
        """Give the network the best weights."""
        if self._weights is not None:
            self._network.load_state_dict(self._weights)


@torch.inference_mode()
def _judged(network: TeacherNetwork, tables: Mapping[str, Tensor], rows: range) -> float:
    """The mean loss of these rows."""
    total = 0.0
    for chosen in torch.split(torch.arange(rows.start, rows.stop), _ROWS_AT_ONCE):
        inputs = _inputs(network.design, tables, chosen, torch.zeros(len(chosen), dtype=torch.bool))
        total += float(_loss(network, inputs, tables, chosen)) * len(chosen)
    return total / len(rows)


def _loss(
    network: TeacherNetwork, inputs: Mapping[str, Tensor], tables: Mapping[str, Tensor], chosen: Tensor
) -> Tensor:
    """The heads' losses of these rows, of those that have a label; a scaled head's is in deviations of its labels."""
    output_BT = network(inputs)
    losses = []
    for t, (head, kind) in enumerate(network.design.heads.items()):
        label_B = tables[f"labels.{head}"][chosen]
        known_B = ~label_B.isnan()
        if not known_B.any():
            continue
        measure = functional.binary_cross_entropy_with_logits if kind == "binary" else functional.mse_loss
        loss = measure(output_BT[known_B, t], label_B[known_B])
        losses.append(loss / network.label_scales[head][1] ** 2 if network.label_scales else loss)
    if network.taste is not None:
        losses.append(network.taste.penalty(inputs))
    return torch.stack(losses or [output_BT.sum() * 0]).sum()


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


def _scale(spec: DesignInput, source: Source) -> Scale:
    values = source.tables[f"{spec.table}.{spec.name}"].astype(np.float64)
    values = np.log1p(values) if spec.logarithm else values
    return float(values.mean()), float(values.std()) or 1.0


def _label_scales(source: Source, learnt: int) -> dict[str, Scale]:
    """Of each head over the rows that are learnt; a binary one is a logit, which is not scaled."""
    found: dict[str, Scale] = {}
    for head, kind in source.design.heads.items():
        label_N = source.tables[f"labels.{head}"][:learnt].astype(np.float64)
        label_N = label_N[~np.isnan(label_N)]
        is_scaled = kind == "regression" and len(label_N) > 0
        found[head] = (float(label_N.mean()), float(label_N.std()) or 1.0) if is_scaled else (0.0, 1.0)
    return found


@contextmanager
def _one_thread() -> Iterator[None]:
    """One thread of torch: the same sums on every machine, and faster than several on a busy one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
