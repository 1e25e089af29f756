"""A published student in numpy: what scorer and served metrics compute from a version's model.safetensors.

Shapes: B rows, D dense columns, C categorical columns, E ids of a row, L embedding dimensions, R table rows, H units of
a tower, K tasks, k served tasks.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.spec import FeatureBatch, FeatureSpec
from student.versions.manifest import Manifest
from student.versions.served_posterior import ID_KEY, USER_KEY, NumpyPosterior, ids_of, places_of, seen_of, units_of
from student.versions.served_tensors import (
    EMBEDDING,
    MEAN,
    STD,
    WEIGHT,
    answer,
    control_tensors,
    embedding_rows,
    normalised,
    served_columns,
    served_layers,
    served_tasks,
    tensor_faults,
)
from student.versions.version_folder import MODEL_FILE, VersionError

Scores = dict[str, NDArray[np.float32]]
"""Per served task B scores: the probability of a binary task, the value of a regression."""

USER_PLACE, ITEM_PLACE = 0, 1
"""The columns of `Places` that belong to the ids of user and item."""

Places = NDArray[np.int32]
"""[B, E + C]: of each id of a row, where what is known of it stands (0: the prior), then of each categorical value, its
row of the embedding table. Student and control of a version have the same."""

_LOWEST_LOGIT = np.float32(-87.0)  # exp(87) is the last one that float32 holds; sigmoid(-87) is 1.6e-38


class NumpyStudent:
    """One version's student. `tensors` are kept, not copied, where their layout allows it.

    The control's are kept where the guard gives it a weight in what is served, which it does not most often, and
    `with_control`, for `values`. `as_control`: the control answers in the student's place.
    VersionError, naming the version and every tensor that is missing, unknown, of another shape or dtype, or not
    finite, with what is expected and what was found.
    """

    def __init__(
        self,
        manifest: Manifest,
        tensors: Mapping[str, NDArray[Any]],
        *,
        as_control: bool = False,
        with_control: bool = False,
    ) -> None:
        faults = tensor_faults(manifest, tensors)
        if faults:
            raise VersionError(f"version {manifest.version}: {MODEL_FILE}: " + "; ".join(faults))
        self.version = manifest.version
        self.tasks = served_tasks(manifest)
        names = [task.name for task in manifest.tasks]
        self._places = [names.index(task) for task in self.tasks]
        self._columns = served_columns(manifest)
        self._user_key, self._id_key = tensors[USER_KEY], tensors[ID_KEY]
        self._table_rows = len(tensors[EMBEDDING])
        binary_K = np.array([task.kind == "binary" for task in manifest.tasks])
        self._binary_K1, self._weight_K1 = binary_K[:, None], tensors[WEIGHT][:, None]
        control = partial(_NumpyArm, manifest, binary_K, control_tensors(tensors), sees_teacher=False)
        self._own = control() if as_control else _NumpyArm(manifest, binary_K, tensors, sees_teacher=True)
        self._heeds_control = not as_control and bool((tensors[WEIGHT][self._places] < 1).any())
        self._control = control() if self._heeds_control or with_control else None

    def places(self, category_BC: NDArray[np.uint64]) -> Places:
        """Where this version has the categorical values of B rows, which is all that it needs of them."""
        id_BE = ids_of(self._columns, category_BC)
        place_BX = np.empty((len(id_BE), self._columns.ids + category_BC.shape[1]), np.int32)
        place_BX[:, 0] = places_of(self._user_key, id_BE[:, 0])
        place_BX[:, 1 : self._columns.ids] = places_of(self._id_key, id_BE[:, 1:])
        place_BX[:, self._columns.ids :] = embedding_rows(category_BC, self._table_rows)
        return place_BX

    def of_item(self, spec: FeatureSpec) -> NDArray[np.bool_]:
        """Which of the E + C places each item of a request has its own of."""
        _, of_item_C = spec.of_item
        of_item_E = [e == 1 if c is None else of_item_C[c] for e, c in enumerate(self._columns.id_columns)]
        return np.concatenate([of_item_E, of_item_C]).astype(bool)

    def score(self, batch: FeatureBatch) -> Scores:
        """The B rows' scores per served task, as the learner predicts them (to 1e-5).

        A row of features so large that float32 overflows scores inf or NaN, without a warning.
        """
        return self.score_at(batch.dense_BD, self.places(batch.categorical_BC))

    def score_at(self, dense_BD: NDArray[np.float32], place_BX: Places) -> Scores:
        """The same, bit for bit, of rows whose places are known."""
        with np.errstate(over="ignore", invalid="ignore"):
            value_KB = self._own.values(dense_BD, place_BX)
            if self._control and self._heeds_control:
                value_KB = self._answer(value_KB, self._control.values(dense_BD, place_BX))
            score_kB = np.where(self._binary_K1, _sigmoid(value_KB), value_KB)[self._places]
            return dict(zip(self.tasks, score_kB, strict=True))

    def values(self, batch: FeatureBatch) -> NDArray[np.float32]:
        """Logits and values of all tasks, [B, K, 2]: the student's answer, as `score` has it, and the control's.

        Only of a student that was made `with_control`.
        """
        assert self._control
        rows = batch.dense_BD, self.places(batch.categorical_BC)
        with np.errstate(over="ignore", invalid="ignore"):
            control_KB = self._control.values(*rows)
            answer_KB = self._answer(self._own.values(*rows), control_KB)
            return np.stack([answer_KB, control_KB], axis=2).transpose(1, 0, 2)

    def _answer(self, own_KB: NDArray[np.float32], control_KB: NDArray[np.float32]) -> NDArray[np.float32]:
        return answer(self._weight_K1, own_KB, control_KB, self._binary_K1).astype(np.float32)


class _NumpyArm:
    """Student or control of a version, by the names of the student's tensors."""

    def __init__(
        self,
        manifest: Manifest,
        binary_K: NDArray[np.bool_],
        tensors: Mapping[str, NDArray[Any]],
        *,
        sees_teacher: bool,
    ) -> None:
        names = [task.name for task in manifest.tasks]
        columns = served_columns(manifest)
        self._posterior = NumpyPosterior(columns, binary_K, tensors)
        self._seen_D, self._unit_D = seen_of(manifest.spec, sees_teacher=sees_teacher), units_of(columns, tensors[STD])
        self._mean_D, self._std_D, self._table_RL = tensors[MEAN], tensors[STD], tensors[EMBEDDING]
        self._ids, self._is_blind = columns.ids, not self._seen_D.all()
        cross, trunk, towers, heads = served_layers(manifest)
        # Copies, since a product with a transposed matrix takes half as long again.
        self._cross = [(np.ascontiguousarray(tensors[layer.weight].T), tensors[layer.bias]) for layer in cross]
        self._trunk = [(np.ascontiguousarray(tensors[layer.weight].T), tensors[layer.bias]) for layer in trunk]
        # All towers are one matrix product: K * H columns, task by task.
        self._tower_weight = np.concatenate([tensors[towers[task].weight].T for task in names], axis=1)
        self._tower_bias = np.concatenate([tensors[towers[task].bias] for task in names])
        self._head_KH1 = np.stack([tensors[heads[task].weight].T for task in names])
        self._head_bias_K11 = np.stack([tensors[heads[task].bias][:, None] for task in names])

    def values(self, dense_BD: NDArray[np.float32], place_BX: Places) -> NDArray[np.float32]:
        """The K x B values: logits and values."""
        dense_BD = normalised(dense_BD, self._mean_D, self._std_D)
        if self._is_blind:
            dense_BD *= self._seen_D
        known = self._posterior.known_at(place_BX[:, : self._ids])
        row_BC = place_BX[:, self._ids :] * self._posterior.admitted(known)  # row 0 is a missing value's
        network_KB = self._network(dense_BD, self._table_RL.take(row_BC, axis=0).reshape(len(row_BC), -1))
        return self._posterior.score(known, dense_BD * self._unit_D, network_KB)

    def _network(self, dense_BD: NDArray[np.float32], embedded_BX: NDArray[np.float32]) -> NDArray[np.float32]:
        """The K x B values of all heads: logits and values."""
        inputs = np.concatenate([dense_BD, embedded_BX], axis=1)
        hidden = inputs
        for weight, bias in self._cross:  # DCN-v2 (Wang et al. 2021), eq. 1
            hidden = inputs * _linear(hidden, weight, bias) + hidden
        for weight, bias in self._trunk:
            hidden = _relu(_linear(hidden, weight, bias))
        towers = _relu(_linear(hidden, self._tower_weight, self._tower_bias))
        towers_KBH = towers.reshape(len(hidden), len(self._head_KH1), -1).transpose(1, 0, 2)
        output_KB1: NDArray[np.float32] = _linear(towers_KBH, self._head_KH1, self._head_bias_K11)
        return output_KB1[:, :, 0]


def _linear(x: NDArray[np.float32], weight: NDArray[np.float32], bias: NDArray[np.float32]) -> NDArray[np.float32]:
    result: NDArray[np.float32] = x @ weight
    result += bias
    return result


def _relu(x: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.maximum(x, 0, out=x)


def _sigmoid(logit: NDArray[np.float32]) -> NDArray[np.float32]:
    result: NDArray[np.float32] = np.float32(1) / (np.float32(1) + np.exp(-np.maximum(logit, _LOWEST_LOGIT)))
    return result
