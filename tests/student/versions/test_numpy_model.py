"""The served student in numpy: what torch computes, and nothing that does not fit its manifest."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from features.spec import Feature, FeatureBatch
from stream.tasks import TaskSpec
from student.versions.manifest import Manifest, StudentConfig
from student.versions.numpy_model import NumpyStudent
from student.versions.served_posterior import BLEND
from student.versions.served_tensors import tensor_shapes
from student.versions.version_folder import VersionError
from tests.specs import spec_of
from tests.student.posteriors import draft_of, manifest_of, transparent, unguarded

SPEC = spec_of(
    Feature(name="user:age", source="user", role="dense", dtype="float", default=0.0),
    Feature(name="item:vector", source="item", role="embedding", dtype="float_list", default=[0.0, 0.0, 0.0]),
    Feature(name="user_id", source="user_id", role="categorical", dtype="int", default=None),
    Feature(name="item:genre", source="item", role="categorical", dtype="str", default=""),
)
STUDENT = StudentConfig(trunk=[8, 6], tower=4, embedding_dim=3, table_rows=32)
TASKS = [
    TaskSpec(name="like", kind="binary", window_seconds=60),
    TaskSpec(name="skip", kind="binary", window_seconds=60, served=False),
    TaskSpec(name="rating", kind="regression", window_seconds=60),
]


def manifest(student: StudentConfig = STUDENT, tasks: list[TaskSpec] = TASKS) -> Manifest:
    return manifest_of(draft_of(SPEC, tasks, student), "v000007")


def tensors(of: Manifest, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    drawn = {n: rng.normal(size=shape, scale=0.3).astype(np.float32) for n, shape in tensor_shapes(of).items()}
    return unguarded(of, drawn | transparent(of) | {"normalizer.std": np.abs(drawn["normalizer.std"]) + 0.5})


def batch(rows: int, seed: int = 0) -> FeatureBatch:
    rng = np.random.default_rng(seed)
    dense = rng.normal(size=(rows, 4)).astype(np.float32)
    categorical = rng.integers(0, 2**64 - 1, size=(rows, 2), dtype=np.uint64, endpoint=True)
    categorical[::3, 0] = 0  # missing
    return FeatureBatch(dense, categorical)


def torch_scores(of: Manifest, weights: dict[str, np.ndarray], rows: FeatureBatch) -> dict[str, np.ndarray]:
    """The layout of model.safetensors read by torch's own layers; hashes to rows by Python integers."""
    w = {name: torch.from_numpy(tensor) for name, tensor in weights.items()}
    last = of.student.table_rows - 1
    row = torch.tensor([[0 if h == 0 else 1 + h % last for h in line] for line in rows.categorical_BC.tolist()])
    dense = ((torch.from_numpy(rows.dense_BD) - w["normalizer.mean"]) / w["normalizer.std"]).clamp(-2, 2)
    inputs = hidden = torch.cat([dense, functional.embedding(row, w["embedding.weight"]).flatten(1)], 1)
    for i in range(of.student.cross_layers):
        hidden = inputs * functional.linear(hidden, w[f"trunk.cross.{i}.weight"], w[f"trunk.cross.{i}.bias"]) + hidden
    for i in range(len(of.student.trunk)):
        hidden = functional.relu(functional.linear(hidden, w[f"trunk.{i}.weight"], w[f"trunk.{i}.bias"]))
    scores = {}
    for task in of.tasks:
        if task.served:
            n = task.name
            tower = functional.relu(functional.linear(hidden, w[f"tower.{n}.weight"], w[f"tower.{n}.bias"]))
            output = functional.linear(tower, w[f"head.{n}.weight"], w[f"head.{n}.bias"])[:, 0]
            scores[n] = (torch.sigmoid(output) if task.kind == "binary" else output).numpy()
    return scores


@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(1, 40),
    trunk=st.lists(st.integers(1, 12), min_size=1, max_size=3),
    cross_layers=st.integers(0, 3),
)
@settings(max_examples=40, deadline=None)
def test_the_scores_are_those_of_torch(seed: int, rows: int, trunk: list[int], cross_layers: int) -> None:
    of = manifest(STUDENT.model_copy(update={"trunk": trunk, "cross_layers": cross_layers}))
    weights = tensors(of, seed)
    scores = NumpyStudent(of, weights).score(batch(rows, seed))
    expected = torch_scores(of, weights, batch(rows, seed))
    assert list(scores) == ["like", "rating"]
    for task, score_B in scores.items():
        assert score_B.dtype == np.float32
        assert score_B.shape == (rows,)
        np.testing.assert_allclose(score_B, expected[task], atol=1e-6, rtol=1e-6)


def test_a_row_scores_the_same_alone_and_among_others() -> None:
    of = manifest()
    student, rows = NumpyStudent(of, tensors(of)), batch(100)
    together = student.score(rows)
    for i in (0, 57, 99):
        alone = student.score(FeatureBatch(rows.dense_BD[i : i + 1], rows.categorical_BC[i : i + 1]))
        for task in together:
            np.testing.assert_allclose(alone[task], together[task][i : i + 1], atol=1e-6, rtol=1e-6)


def test_probabilities_of_extreme_logits_are_finite_and_raise_no_warning() -> None:
    of = manifest()
    for bias in (-1e30, -100.0, 100.0, 1e30):
        weights = tensors(of)
        weights[BLEND][0, 0] = bias
        like_B = NumpyStudent(of, weights).score(batch(5))["like"]
        assert np.isfinite(like_B).all()
        assert (like_B < 1e-30).all() if bias < 0 else (like_B == 1).all()


def test_scoring_changes_neither_batch_nor_weights() -> None:
    of = manifest()
    weights, rows = tensors(of), batch(9)
    first = NumpyStudent(of, weights).score(rows)
    second = NumpyStudent(of, weights).score(rows)
    assert np.array_equal(rows.dense_BD, batch(9).dense_BD)
    assert all(np.array_equal(weights[name], tensors(of)[name]) for name in weights)
    assert all(np.array_equal(first[task], second[task]) for task in first)


def without(weights: dict[str, np.ndarray], name: str) -> dict[str, np.ndarray]:
    return {key: tensor for key, tensor in weights.items() if key != name}


def test_every_tensor_that_does_not_fit_is_named_with_what_is_expected_and_found() -> None:
    of = manifest()
    weights = without(tensors(of), "tower.like.bias") | {
        "trunk.0.weight": np.zeros((8, 11), np.float32),
        "trunk.1.bias": np.zeros(6, np.float64),
        "head.rating.bias": np.array([np.nan], np.float32),
        "normalizer.std": np.zeros(4, np.float32),
        "tower.dwell.bias": np.zeros(4, np.float32),
    }
    with pytest.raises(VersionError) as error:
        NumpyStudent(of, weights)
    text = str(error.value)
    assert text.startswith("version v000007: model.safetensors: ")
    for fault in (
        "tower.like.bias is missing, expected float32 [4]",
        "tower.dwell.bias is unknown",
        "trunk.0.weight: expected float32 [8, 10], found float32 [8, 11]",
        "trunk.1.bias: expected float32 [6], found float64 [6]",
        "head.rating.bias: expected finite values, found 1 of 1 that are not",
        "normalizer.std: expected values above 0, found 4 of 4 that are not",
    ):
        assert fault in text
    assert text.count(";") == 5


def test_a_version_that_serves_no_task_is_refused() -> None:
    of = manifest(tasks=[TASKS[1]])
    with pytest.raises(VersionError, match="no task is served, expected one of skip"):
        NumpyStudent(of, tensors(of))
