"""The layout of model.safetensors, which scorers of other versions read too: it never changes unnoticed."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from student.versions.manifest import Manifest, StudentConfig
from student.versions.served_tensors import embedding_rows, layers_of, served_tasks, tensor_shapes
from tests.student.posteriors import draft_of, manifest_of


@pytest.fixture
def manifest(toy: Any) -> Manifest:
    """4 dense columns, 2 categorical ones; `hidden` is not served."""
    student = StudentConfig(trunk=[8, 6], cross_layers=1, tower=5, embedding_dim=3, table_rows=32)
    return manifest_of(draft_of(toy.spec, toy.tasks[:2], student))


def test_a_version_has_these_tensors_and_no_other(manifest: Manifest) -> None:
    assert served_tasks(manifest) == ("like",)
    student = {
        "normalizer.mean": (4,),
        "normalizer.std": (4,),
        "embedding.weight": (32, 3),
        "trunk.cross.0.weight": (10, 10),
        "trunk.cross.0.bias": (10,),
        "trunk.0.weight": (8, 10),
        "trunk.0.bias": (8,),
        "trunk.1.weight": (6, 8),
        "trunk.1.bias": (6,),
        "tower.like.weight": (5, 6),
        "tower.like.bias": (5,),
        "head.like.weight": (1, 5),
        "head.like.bias": (1,),
        "tower.hidden.weight": (5, 6),
        "tower.hidden.bias": (5,),
        "head.hidden.weight": (1, 5),
        "head.hidden.bias": (1,),
        "posterior.weight": (2, 14),
        "posterior.covariance": (2, 14, 14),
        "posterior.blend": (2, 3),
        "posterior.unit": (2, 2),
        "posterior.reach": (2,),
        "posterior.own": (2, 0),
        "users.key": (5,),
        "users.known": (6, 21),
        "ids.key": (3,),
        "ids.known": (4, 9),
    }
    control = {f"control.{name}": shape for name, shape in student.items() if name not in ("users.key", "ids.key")}
    assert tensor_shapes(manifest, users=5, ids=3) == student | control | {"guard.weight": (2,)}


def test_a_tasks_layers_are_the_shared_ones_its_tower_and_its_head(manifest: Manifest) -> None:
    layers = layers_of(manifest.student, 4, 2, ["like", "hidden"])
    names = [layer.name for layer in layers.of_tasks(["hidden"])]
    assert names == ["trunk.cross.0", "trunk.0", "trunk.1", "tower.hidden", "head.hidden"]


@given(st.lists(st.integers(1, 2**64 - 1), min_size=1), st.integers(2, 1 << 20))
def test_a_hash_has_one_row_of_the_table_that_is_not_the_missing_one(hashes: list[int], table_rows: int) -> None:
    rows = embedding_rows(np.array([hashes], np.uint64), table_rows)
    assert rows.tolist() == [[1 + value % (table_rows - 1) for value in hashes]]


def test_a_missing_value_has_row_0() -> None:
    assert embedding_rows(np.array([[0, 7]], np.uint64), 8).tolist() == [[0, 1]]
