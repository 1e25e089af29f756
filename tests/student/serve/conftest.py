"""Registries of the scorer's tests."""

import pytest

from student.versions.registry import Registry
from tests.student.serve.test_server import publish


@pytest.fixture(autouse=True)
def _patient_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy test machine alone degrades no reply."""
    monkeypatch.setattr("student.serve.swap._READ_SECONDS", 5.0)


@pytest.fixture
def published(registry: Registry) -> Registry:
    """With one version."""
    publish(registry)
    return registry
