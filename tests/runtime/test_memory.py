"""The memory that a process may use."""

from pathlib import Path

import pytest

from runtime import memory


def test_a_containers_limit_counts_where_it_is_lower(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    none, limit = tmp_path / "none", tmp_path / "limit"
    none.write_text("max\n")
    monkeypatch.setattr(memory, "_CGROUP_LIMITS", (tmp_path / "absent", none))
    machine = memory.memory_bytes()
    assert machine > 1 << 28
    monkeypatch.setattr(memory, "_CGROUP_LIMITS", (none, limit))
    limit.write_text(f"{1 << 27}\n")
    assert memory.memory_bytes() == 1 << 27
    limit.write_text(f"{1 << 62}\n")
    assert memory.memory_bytes() == machine
