"""The layout of model.safetensors, which scorers of other versions read too: it never changes unnoticed."""

from typing import Any

import pytest

from stream.tasks import TaskSpec
from student.versions.manifest import Manifest, StudentConfig
from student.versions.served_tensors import layers_of, served_tasks, tensor_shapes


@pytest.fixture
def manifest(toy: Any) -> Manifest:
    """4 dense columns, 2 categorical ones; `hidden` is not served."""
    student = StudentConfig(trunk=[8, 6], cross_layers=1, tower=5, embedding_dim=3, table_rows=32)
    return Manifest(
        version="v000001",
        parent=None,
        created_at_ms=0,
        examples=0,
        offsets={},
        spec=toy.spec,
        tasks=[
            TaskSpec(name="like", kind="binary", window_seconds=60),
            TaskSpec(name="hidden", kind="binary", window_seconds=60, served=False),
        ],
        student=student,
        teacher_version=None,
        sha256={},
        metrics={},
    )


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
