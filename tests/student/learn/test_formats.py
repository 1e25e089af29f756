"""A version of another release: what a learner and a scorer say of it."""

import json
from pathlib import Path
from typing import Any

import pytest

from student.versions.manifest import FORMAT
from student.versions.registry import Registry
from student.versions.version_folder import VersionError
from tests.student.learn.learning_in_memory import learn_in_memory


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
