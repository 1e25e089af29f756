"""The network of the teachers that graft trains: embedded codes and scaled numbers, one trunk, a head for each task.

It learns rows of the source domain alone; the same seed and rows give the same weights.

Shapes: N rows, B rows of a batch, W an input's width, T tasks.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from graft.fit.design import DesignInput, DesignTaste, Source, Split, TeacherDesign

_UNKNOWN_USERS = 0.5  # share of the rows whose user is shown as unknown
_PATIENCE = 2  # epochs without a better one after which learning ends
_ROWS_AT_ONCE = 1 << 16

Scale = tuple[float, float]
"""A mean and a standard deviation."""

Progress = Callable[[int, int], None]
"""Called with the steps done and the most steps there may be."""


class TeacherNetwork(nn.Module):
    """`scales` gives for each number input the mean and the standard deviation by which it is scaled."""

    def __init__(self, design: TeacherDesign, scales: Mapping[str, Scale]) -> None:
        super().__init__()
        self.design = design
        self.scales = dict(scales)
        self.embeddings = nn.ModuleDict(
            {i.name: _embedding(i.codes, design.embedding_dim) for i in design.columns if i.codes is not None}
        )
        widths = [sum(design.embedding_dim if i.codes else i.width for i in design.columns), *design.trunk]
        self.trunk = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.heads = nn.Linear(widths[-1], len(design.heads))
        self.taste = Taste(design, design.taste) if design.taste else None

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Logits and values [B, T] in the order of the design's heads; codes are int64 [B], numbers [B] or [B, W]."""
        hidden = torch.cat([self._column(i, inputs[i.name]) for i in self.design.columns], dim=1)
        for layer in self.trunk:
            hidden = torch.relu(layer(hidden))
        outputs: Tensor = self.heads(hidden)
        return outputs if self.taste is None else outputs + self.taste(inputs)

    @torch.no_grad()
    def unscale(self, scales: Mapping[str, Scale]) -> None:
        """Give these heads, which learnt scaled labels, the unit of their labels."""
        for t, head in enumerate(self.design.heads):
            mean, deviation = scales.get(head, (0.0, 1.0))
            self.heads.weight[t] *= deviation
            self.heads.bias[t] = self.heads.bias[t] * deviation + mean
            if self.taste is not None:
                self.taste.scale_T[t] *= deviation

    def _column(self, spec: DesignInput, values: Tensor) -> Tensor:
        if spec.codes is not None:
            embedded: Tensor = self.embeddings[spec.name](values)
            return embedded
        mean, deviation = self.scales[spec.name]
        numbers = torch.log1p(values) if spec.logarithm else values
        return ((numbers - mean) / deviation).reshape(-1, spec.width)


class Taste(nn.Module):
    """What `DesignTaste` says: a vector of W numbers for each user and each item code."""

    def __init__(self, design: TeacherDesign, taste: DesignTaste) -> None:
        super().__init__()
        codes = {i.name: i.codes or 0 for i in design.inputs}
        self.design = taste
        self.users = nn.Embedding(codes[taste.user], taste.width, padding_idx=0)
        self.items = nn.Embedding(codes[taste.item], taste.width)
        self.scale_T = nn.Parameter(torch.ones(len(design.heads)))
        for table in (self.users, self.items):
            nn.init.normal_(table.weight, std=0.1)
        with torch.no_grad():
            self.users.weight[0] = 0

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """What it adds to each head, [B, T]."""
        product_BW = self.users(inputs[self.design.user]) * self.items(inputs[self.design.item])
        added_BT: Tensor = product_BW.sum(dim=1, keepdim=True) * self.scale_T
        return added_BT

    def penalty(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """What the loss of these rows has of the vectors themselves."""
        vectors = self.users(inputs[self.design.user]), self.items(inputs[self.design.item])
        return self.design.decay * torch.stack([vector_BW.square().sum(dim=1).mean() for vector_BW in vectors]).sum()

    @torch.no_grad()
    def turn(self) -> None:
        """Turn both tables so that users vary alike and uncorrelated along each axis; no product changes.

        The axis along which items differ the most comes first.
        """
        covariance_WW = torch.cov(self.users.weight[1:].T)
        variance_W, axes_WW = torch.linalg.eigh(covariance_WW)
        turned = axes_WW.flip(1) * variance_W.flip(0).clamp(min=1e-12).sqrt()
        self.users.weight.copy_(torch.linalg.solve(turned, self.users.weight.T).T)
        self.items.weight.copy_(self.items.weight @ turned)


class Trained(NamedTuple):
    """The network after its best epoch, which is the last one where no rows judge; and how many epochs it took."""

    network: TeacherNetwork
    epochs: int


def train(source: Source, split: Split, seed: int, progress: Progress) -> Trained:
    """A network that has learnt the first rows; with rows that judge it ends where these are predicted no better."""
    design, tables = source.design, dict(source.tables)
    label_scales = _label_scales(source, split.learnt) if design.scale_labels else {}
    for head, (mean, deviation) in label_scales.items():
        label_N = tables[f"labels.{head}"].astype(np.float64)
        tables[f"labels.{head}"] = ((label_N - mean) / deviation).astype(np.float32)
    with _one_thread():
        torch.manual_seed(seed)
        network = TeacherNetwork(design, {i.name: _scale(i, source) for i in design.inputs if i.codes is None})
        epochs = _learn(network, _tensors(tables), split, torch.Generator().manual_seed(seed), progress)
        network.unscale(label_scales)
        if network.taste is not None:
            network.taste.turn()
        return Trained(network, epochs)


@torch.inference_mode()
def predict(network: TeacherNetwork, source: Source, rows: range, *, unknown: bool = False) -> NDArray[np.float32]:
    """The network's outputs for these rows, [B, T]; with `unknown` as if it had never seen their users."""
    with _one_thread():
        tables = _tensors(source.tables)
        outputs = [
            network(_inputs(network.design, tables, chosen, torch.full((len(chosen),), unknown))).numpy()
            for chosen in torch.split(torch.arange(rows.start, rows.stop), _ROWS_AT_ONCE)
        ]
    output_BT: NDArray[np.float32] = np.concatenate(outputs)
    return output_BT


def _tensors(tables: Mapping[str, NDArray[np.generic]]) -> dict[str, Tensor]:
    return {name: torch.from_numpy(np.asarray(table)) for name, table in tables.items()}


def _learn(
    network: TeacherNetwork, tables: Mapping[str, Tensor], split: Split, random: torch.Generator, progress: Progress
) -> int:
    """Learn epoch by epoch, and keep the one with the least loss on the rows that judge; how many there were."""
    design = network.design
    steps = design.epochs * -(-split.learnt // design.batch_rows)
    optimizer = torch.optim.Adam(network.parameters(), lr=design.learning_rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0 - step / (steps + 1))
    least, best_weights, step, epoch, worse_epochs = float("inf"), None, 0, 0, 0
    while epoch < design.epochs and worse_epochs < _PATIENCE:
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
        if not split.judged:
            continue
        worse_epochs += 1
        if (judged := _judged(network, tables, range(split.learnt, split.used))) < least:
            least, best_weights, worse_epochs = judged, deepcopy(network.state_dict()), 0
    if best_weights is not None:
        network.load_state_dict(best_weights)
    return epoch


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
    """The heads' losses of these rows, of those that have a label."""
    output_BT = network(inputs)
    losses = []
    for t, (head, kind) in enumerate(network.design.heads.items()):
        label_B = tables[f"labels.{head}"][chosen]
        known_B = ~label_B.isnan()
        if known_B.any():
            measure = functional.binary_cross_entropy_with_logits if kind == "binary" else functional.mse_loss
            losses.append(measure(output_BT[known_B, t], label_B[known_B]))
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
        inputs[spec.name] = values.masked_fill(unknown_B, spec.default) if spec.history else values
    return inputs


def _embedding(codes: int, width: int) -> nn.Embedding:
    embedding = nn.Embedding(codes, width)
    nn.init.normal_(embedding.weight, std=0.05)
    return embedding


def _scale(spec: DesignInput, source: Source) -> Scale:
    values = source.tables[f"{spec.table}.{spec.name}"].astype(np.float64)
    values = np.log1p(values) if spec.logarithm else values
    return float(values.mean()), float(values.std()) or 1.0


def _label_scales(source: Source, learnt: int) -> dict[str, Scale]:
    """Of each regression with a label in the rows that are learnt."""
    scales: dict[str, Scale] = {}
    for head, kind in source.design.heads.items():
        label_N = source.tables[f"labels.{head}"][:learnt].astype(np.float64)
        label_N = label_N[~np.isnan(label_N)]
        if kind == "regression" and len(label_N):
            scales[head] = float(label_N.mean()), float(label_N.std()) or 1.0
    return scales


@contextmanager
def _one_thread() -> Iterator[None]:
    """One thread of torch: the same sums on every machine, and faster than several on a busy one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
