"""A version of another release: what a learner and a scorer make of it."""

import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from runtime.errors import ConfigurationError
from student.learn.learner import Learner
from student.versions.manifest import FORMAT
from student.versions.registry import Registry
from student.versions.version_folder import VersionError
from tests.student.learn.learning_in_memory import learn_in_memory

_FORMER = Path(__file__).with_name("former_versions.tar.xz")
"""Of commit 47ff73d: what it had learnt of the toy's first 83 examples with their logits, so a step is open, and what
it served after 77 more without logits. In `towers` the teacher task `finish` has a tower of its own."""


@pytest.fixture
def former(tmp_path: Path) -> Path:
    with tarfile.open(_FORMER) as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path


def test_a_learner_goes_on_from_a_former_version_as_its_own_release_did(toy: Any, former: Path) -> None:
    registry = Registry(former / "plain")

    learn_in_memory(toy, registry, [toy.example(n) for n in range(160)])

    manifest, served = registry.load_model(str(registry.latest()))
    expected = safetensors.numpy.load_file(former / "plain_160_examples.safetensors")
    assert (manifest.version, manifest.examples) == ("v000003", 160)
    assert served.keys() == expected.keys()
    for name, tensor in expected.items():
        np.testing.assert_allclose(served[name], tensor, atol=1e-5, err_msg=name)  # machines round differently


def test_a_learner_goes_on_without_the_towers_that_teacher_tasks_had_of_their_own(toy: Any, former: Path) -> None:
    """What serves is as it was, bit for bit, and the optimizer's moments stay with their weights."""
    registry = Registry(former / "towers")
    _, tensors, state = registry.load_learner("v000002")
    learner = Learner(toy.setup())

    learner.restore(tensors, state)

    _, served = registry.load_model("v000002")
    now = learner.served_tensors()
    assert {name: tensor.tobytes() for name, tensor in now.items()} == {n: t.tobytes() for n, t in served.items()}
    learn_in_memory(toy, registry, [toy.example(n) for n in range(160)])
    manifest, after = registry.load_model(str(registry.latest()))
    assert (manifest.version, manifest.examples) == ("v000003", 160)
    plain = safetensors.numpy.load_file(former / "plain_160_examples.safetensors")
    for name in ("posterior.weight", "posterior.blend", "trunk.0.weight"):
        np.testing.assert_allclose(after[name], plain[name], atol=0.05, err_msg=name)


def test_a_former_version_that_learnt_with_an_adapter_is_refused_with_one_line(toy: Any, former: Path) -> None:
    registry = Registry(former / "plain")
    _, _, state = registry.load_learner("v000002")
    described = {**state["setup"], "distillation": [["like", "like", "adapter"], ["rating", "rating"]]}
    with pytest.raises(
        ConfigurationError, match=r"set GRAFT_VERSIONS.*\ndistillation.0: was \['like', 'like', 'adapter'\]"
    ):
        toy.setup().check_continues("v000002", described)


def test_a_version_without_a_posterior_is_refused_with_what_to_do(toy: Any, tmp_path: Path) -> None:
    """Format 3 had networks alone, which served their own values."""
    registry = Registry(tmp_path)
    examples = [toy.example(n) for n in range(24)]
    learn_in_memory(toy, registry, examples)
    newest = str(registry.latest())
    path = tmp_path / newest / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 3}))
    with pytest.raises(VersionError, match=f"format must be {FORMAT}, found 3; .*learn anew: 'graft reset --versions'"):
        learn_in_memory(toy, registry, examples)
    with pytest.raises(VersionError, match=f"format must be {FORMAT}, found 3"):
        registry.load_model(newest)
