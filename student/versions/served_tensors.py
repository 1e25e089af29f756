"""The network that a version serves: its inputs, the tensors of model.safetensors, what is wrong with them, the guard.

The same for learner and scorer: dense columns are normalised, categorical ones hashed to rows. The learner writes the
tensors, the scorer reads them. The learner's own weights have the same names, beside others that are not served. Those
of the control have the names of the student's after "control.", and the guard's weight says how much each counts.
Shapes: B rows, D dense columns, C categorical columns, R table rows, E embedding, K tasks.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.spec import MISSING_HASH
from student.versions.manifest import Manifest, StudentConfig
from student.versions.served_posterior import ID_KEY, UNIT, USER_KEY, Columns, columns_of, posterior_shapes, remembered

_CLIP = np.float32(2)
"""Deviations from the mean at which an input is cut off. Counts go on growing after a version is published, and a
student gives wild scores to inputs larger than any that it has learnt (decision 4 has the numbers)."""

_CONSTANT = 1e-6
"""A deviation below this share of the mean is rounding: the column has not varied yet."""


def normalised(
    value_BD: NDArray[np.float32], mean_D: NDArray[np.float32], std_D: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Values in deviations from the mean, in [-2, 2], as learner and scorer give them to the student."""
    with np.errstate(over="ignore"):  # what is beyond float32 in deviations is cut off like any other large value
        clipped_BD: NDArray[np.float32] = ((value_BD - mean_D) / std_D).clip(-_CLIP, _CLIP)
    return clipped_BD


class RunningMoments:
    """Count, mean and squared deviations of D columns; a NaN is no value and counts in no column.

    Merged batch by batch (Chan, Golub & LeVeque 1979), in float64: the result depends on the batches' order, which is
    the log's.
    """

    def __init__(self, width: int) -> None:
        self._count_D = np.zeros(width, np.int64)
        self._mean_D = np.zeros(width, np.float64)
        self._squares_D = np.zeros(width, np.float64)
        self._follow()

    def update(self, value_BD: NDArray[np.float32], weight_B1: NDArray[np.float32] | None = None) -> None:
        """Add B rows; `weight_B1` are whole numbers: each row counts as so many."""
        present_BD = ~np.isnan(value_BD)
        count_BD = present_BD if weight_B1 is None else present_BD * weight_B1.astype(np.int64)
        count_D = count_BD.sum(axis=0)
        value_BD64 = np.where(present_BD, value_BD, 0).astype(np.float64)
        mean_D = (value_BD64 * count_BD).sum(axis=0) / np.maximum(count_D, 1)
        squares_D = ((value_BD64 - mean_D) ** 2 * count_BD).sum(axis=0)
        total_D = self._count_D + count_D
        share_D = count_D / np.maximum(total_D, 1)
        delta_D = mean_D - self._mean_D
        self._squares_D += squares_D + delta_D**2 * self._count_D * share_D
        self._mean_D += delta_D * share_D
        self._count_D = total_D
        self._follow()

    def discount(self, count: int) -> None:
        """Give all values so far the weight of `count` values at most.

        A column that has not varied weighs as one value: its deviation is not known yet.
        """
        most_D = np.where(self._squares_D > 0, count, 1)
        kept_D = np.minimum(self._count_D, most_D)
        self._squares_D *= kept_D / np.maximum(self._count_D, 1)
        self._count_D = kept_D
        self._follow()

    @property
    def count(self) -> NDArray[np.int64]:
        """Values seen per column."""
        return self._count_D

    @property
    def mean(self) -> NDArray[np.float32]:
        """Mean per column; 0 before the first value."""
        return self._told_mean_D

    @property
    def std(self) -> NDArray[np.float32]:
        """Standard deviation per column; 1 for a column that has not varied yet, so that it divides safely."""
        return self._told_std_D

    def tensors(self) -> dict[str, NDArray[Any]]:
        """The whole state."""
        return {"count": self._count_D, "mean": self._mean_D, "squares": self._squares_D}

    def restore(self, tensors: Mapping[str, NDArray[Any]]) -> None:
        """Take over a state that `tensors` gave."""
        self._count_D = tensors["count"].copy()
        self._mean_D = tensors["mean"].copy()
        self._squares_D = tensors["squares"].copy()
        self._follow()

    def _follow(self) -> None:
        """Mean and deviation, which are read many times for each change."""
        std_D = np.sqrt(self._squares_D / np.maximum(self._count_D, 1))
        constant_D = std_D <= _CONSTANT * np.maximum(np.abs(self._mean_D), _CONSTANT)
        self._told_mean_D = self._mean_D.astype(np.float32)
        self._told_std_D: NDArray[np.float32] = np.where(constant_D, 1.0, std_D).astype(np.float32)


def embedding_rows(categorical_BC: NDArray[np.uint64], table_rows: int) -> NDArray[np.int64]:
    """Rows [B, C] of 64-bit hashes: 1 + h mod (`table_rows` - 1); 0 for a missing value.

    The hashing trick (Weinberger et al. 2009): memory is bounded and an id never seen before has a row at once; two
    ids may share one.
    """
    row_BC = (categorical_BC % np.uint64(table_rows - 1) + np.uint64(1)).astype(np.int64)
    row_BC *= categorical_BC != MISSING_HASH
    return row_BC


WEIGHT = "guard.weight"
"""[K]: of the student's own value in its answer; the rest is the control's."""

MEAN = "normalizer.mean"
"""[D]: what is subtracted from the dense columns."""

STD = "normalizer.std"
"""[D]: what the dense columns are divided by then; above 0."""

EMBEDDING = "embedding.weight"
"""[R, E]."""


SHARED = (USER_KEY, ID_KEY)
"""What student and control have in common: both remember the same ids."""


_CONTROL = "control."

_RULES: dict[str, tuple[str, Callable[[NDArray[Any]], NDArray[np.bool_]]]] = {
    STD: ("values above 0", lambda std_D: std_D > 0),
    UNIT: ("scales above 0", lambda unit_K2: unit_K2[:, 1] > 0),
    USER_KEY: ("keys in increasing order", lambda key_N: key_N[1:] > key_N[:-1]),
    ID_KEY: ("keys in increasing order", lambda key_N: key_N[1:] > key_N[:-1]),
    WEIGHT: ("weights from 0 to 1", lambda weight_K: (weight_K >= 0) & (weight_K <= 1)),
}
"""What finite values of some tensors must be, and where they are."""


def of_control(name: str) -> str:
    """The name of the control's tensor that is its counterpart to one of the student's."""
    return name if name in SHARED else f"{_CONTROL}{name}"


class Layer(NamedTuple):
    """A linear layer of so many inputs and outputs."""

    name: str
    inputs: int
    outputs: int

    @property
    def weight(self) -> str:
        """The name of its weight [outputs, inputs]."""
        return f"{self.name}.weight"

    @property
    def bias(self) -> str:
        """The name of its bias [outputs]."""
        return f"{self.name}.bias"

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Its tensors by name."""
        return {self.weight: (self.outputs, self.inputs), self.bias: (self.outputs,)}


class Layers(NamedTuple):
    """The layers of a student: the shared ones, then a tower and a head for each task, by its name."""

    cross: tuple[Layer, ...]
    trunk: tuple[Layer, ...]
    towers: dict[str, Layer]
    heads: dict[str, Layer]

    def of_tasks(self, tasks: Iterable[str]) -> Iterator[Layer]:
        """All that the heads of these tasks need, from the inputs on."""
        yield from self.cross
        yield from self.trunk
        for task in tasks:
            yield self.towers[task]
            yield self.heads[task]


def layers_of(config: StudentConfig, dense: int, categorical: int, tasks: Iterable[str]) -> Layers:
    """The layers of a student of so many dense and categorical columns."""
    names, width = list(tasks), dense + categorical * config.embedding_dim
    widths = [width, *config.trunk]
    return Layers(
        cross=tuple(Layer(f"trunk.cross.{i}", width, width) for i in range(config.cross_layers)),
        trunk=tuple(Layer(f"trunk.{i}", widths[i], units) for i, units in enumerate(config.trunk)),
        towers={name: Layer(f"tower.{name}", widths[-1], config.tower) for name in names},
        heads={name: Layer(f"head.{name}", config.tower, 1) for name in names},
    )


def served_tasks(manifest: Manifest) -> tuple[str, ...]:
    """The names of the tasks that a reply carries, in the project's order."""
    return tuple(task.name for task in manifest.tasks if task.served)


def served_layers(manifest: Manifest) -> Layers:
    """The layers that a version serves: those of all tasks, since what is known of one tells of the others."""
    spec, tasks = manifest.spec, [task.name for task in manifest.tasks]
    return layers_of(manifest.student, len(spec.dense_names), len(spec.categorical), tasks)


def served_columns(manifest: Manifest) -> Columns:
    """The columns of the posterior that a version serves."""
    return columns_of(manifest.spec, len(manifest.tasks), manifest.teacher_tasks)


def tensor_shapes(manifest: Manifest, users: int = 0, ids: int = 0) -> dict[str, tuple[int, ...]]:
    """Every tensor of model.safetensors, with its shape, when so many users and other ids are remembered."""
    dense, student = len(manifest.spec.dense_names), manifest.student
    table = (student.table_rows, student.embedding_dim)
    shapes: dict[str, tuple[int, ...]] = {MEAN: (dense,), STD: (dense,), EMBEDDING: table}
    for layer in served_layers(manifest).of_tasks(task.name for task in manifest.tasks):
        shapes |= layer.shapes()
    shapes |= posterior_shapes(served_columns(manifest), users, ids)
    return shapes | {of_control(name): shape for name, shape in shapes.items()} | {WEIGHT: (len(manifest.tasks),)}


def control_tensors(tensors: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """The control's tensors, under the names of the student's."""
    return {name: tensors[of_control(name)] for name in tensors if of_control(name) in tensors}


def tensor_faults(manifest: Manifest, tensors: Mapping[str, NDArray[Any]]) -> list[str]:
    """Every tensor that is missing, unknown, of another shape or dtype, or not finite: what is expected, what found."""
    shapes = tensor_shapes(manifest, remembered(tensors, USER_KEY), remembered(tensors, ID_KEY))
    faults = [f"{name} is missing, expected {_expected(name, shapes[name])}" for name in shapes if name not in tensors]
    faults += [f"{name} is unknown, expected {', '.join(shapes)}" for name in tensors if name not in shapes]
    if not served_tasks(manifest):
        faults.append(f"no task is served, expected one of {', '.join(t.name for t in manifest.tasks)}")
    for name, shape in shapes.items():
        if name in tensors:
            faults += _value_faults(name, shape, tensors[name])
    return faults


def _dtype(name: str) -> type[np.generic]:
    return np.uint64 if name in (USER_KEY, ID_KEY) else np.float32


def _expected(name: str, shape: tuple[int, ...]) -> str:
    return f"{np.dtype(_dtype(name))} {list(shape)}"


def _value_faults(name: str, shape: tuple[int, ...], tensor: NDArray[Any]) -> list[str]:
    if tensor.dtype != _dtype(name) or tensor.shape != shape:
        return [f"{name}: expected {_expected(name, shape)}, found {tensor.dtype} {list(tensor.shape)}"]
    if not np.isfinite(tensor).all():
        count = tensor.size - np.count_nonzero(np.isfinite(tensor))
        return [f"{name}: expected finite values, found {count} of {tensor.size} that are not"]
    says, holds = _RULES.get(name.removeprefix(_CONTROL), (None, None))
    if holds and not (held := holds(tensor)).all():
        return [f"{name}: expected {says}, found {held.size - np.count_nonzero(held)} of {held.size} that are not"]
    return []


_NEGLIGIBLE = 1e-3
"""A weight that is as none: the scorer need not compute what has it."""

Floats = NDArray[np.floating[Any]]


def weight_of(evidence_X: Floats) -> Floats:
    """The student's weight, from the log odds that it predicts better than the control; exactly 0 or 1 at the ends."""
    weight_X = 1 / (1 + np.exp(-np.clip(evidence_X, -50, 50)))
    return np.where(weight_X < _NEGLIGIBLE, 0.0, np.where(weight_X > 1 - _NEGLIGIBLE, 1.0, weight_X))


def answer(weight_X: Floats, student_X: Floats, control_X: Floats, binary_X: NDArray[np.bool_]) -> Floats:
    """The guard: the mean of the student's value and its control's, weighted by how well each has predicted.

    Of the probabilities of two logits (binary), as a logit, or of the values themselves. So a teacher that is of no use
    costs next to nothing, whatever it says.
    """
    with np.errstate(divide="ignore"):  # the logarithm of a weight of 0
        own_X, other_X = np.log(weight_X), np.log1p(-weight_X)
    positive_X = np.logaddexp(own_X + _log_sigmoid(student_X), other_X + _log_sigmoid(control_X))
    negative_X = np.logaddexp(own_X + _log_sigmoid(-student_X), other_X + _log_sigmoid(-control_X))
    mean_X = np.where(binary_X, positive_X - negative_X, weight_X * student_X + (1 - weight_X) * control_X)
    return np.where(weight_X == 1, student_X, np.where(weight_X == 0, control_X, mean_X))


def _log_sigmoid(logit_X: Floats) -> Floats:
    return -np.logaddexp(0, -logit_X)
