"""The sister product's own graft scorer as a teacher: its /v2 endpoint over real HTTP."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtime.errors import ConfigurationError
from student.versions.registry import Registry
from teacher_cache.config import TeacherConfig
from teacher_cache.kinds.computed_teacher import TeacherUnavailableError
from teacher_cache.kinds.load import load_teacher
from tests.student.serve.test_inference import VARIED
from tests.student.serve.test_server import Endpoint, publish, serving


@pytest.fixture
def endpoint(tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    """A scorer with two versions, the second of which serves."""
    monkeypatch.setattr("student.serve.swap._READ_SECONDS", 5.0)
    registry = Registry(tmp_path / "versions")
    for _ in range(2):
        publish(registry, weights=VARIED)
    with serving(registry, redis_url) as running:
        running.wait_for("v000002")
        yield running


def _config(endpoint: Endpoint, **server: Any) -> TeacherConfig:
    task = {"name": "stars", "kind": "regression", "output": "rating"}
    told = {"url": f"http://127.0.0.1:{endpoint.port}", "model": "student", **server}
    return TeacherConfig.model_validate({"version": "t1", "tasks": [task], "inputs": {}, "server": told})


def test_its_scores_are_those_of_score(endpoint: Endpoint, tmp_path: Path) -> None:
    teacher = load_teacher(_config(endpoint, model_version="v000002", batch_rows=3), tmp_path)
    assert {name: (one.dtype.kind, one.width) for name, one in teacher.inputs.items()} == {
        "user_id": ("i", 1), "item_ids": ("i", 1), "context.hour": ("i", 1)
    }  # fmt: skip
    random = np.random.default_rng(0)
    rows = {
        "user_id": random.integers(0, 3, 40),
        "item_ids": random.integers(0, 12, 40),
        "context.hour": random.integers(0, 2, 40),
    }
    found = teacher.score(rows)[:, 0]
    for row in range(40):
        user, item, hour = (int(rows[name][row]) for name in rows)
        _, reply = endpoint.post({"user_id": user, "item_ids": [item], "context": {"hour": hour}})
        assert found[row] == pytest.approx(reply["scores"]["rating"][0], abs=1e-5)
    assert len(set(found.tolist())) > 5


def test_a_version_must_be_named_and_its_label_is_not_one(endpoint: Endpoint, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"several versions, .*v000002.*; name one of them"):
        load_teacher(_config(endpoint), tmp_path)
    teacher = load_teacher(_config(endpoint, model_version="champion"), tmp_path)
    rows = {name: np.zeros(1, np.int64) for name in teacher.inputs}
    with pytest.raises(TeacherUnavailableError, match="answered with version 'v000002', asked was 'champion'"):
        teacher.score(rows)
