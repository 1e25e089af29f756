"""Whatever stands in graft.toml, it is mended, and nothing is told that the strict reading does not tell."""

import tomllib
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from graft.faults import faults_of
from graft.mending import mended
from graft.project import Project

_TOML = Path(__file__).parents[2] / "fixtures" / "simulated" / "graft.toml"
_REMOVED = object()
_WRONG = [_REMOVED, 3, -1.5, "x", True, [], {}, [3], {"kind": "x"}, {"a": {"b": 1}}, [{}], ["x", "x"]]


def _places(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*above, key)
        yield from _places(inner, (*above, key))


def _changed(table: Any, place: tuple[Any, ...], wrong: Any) -> Any:
    changed = deepcopy(table)
    parent = changed
    for key in place[:-1]:
        parent = parent[key]
    if wrong is _REMOVED:
        del parent[place[-1]]
    else:
        parent[place[-1]] = deepcopy(wrong)
    return changed


@pytest.mark.parametrize("wrong", _WRONG, ids=lambda wrong: "removed" if wrong is _REMOVED else repr(wrong))
def test_a_wrong_value_anywhere_is_mended_with_the_faults_of_the_strict_reading(wrong: Any) -> None:
    table = {**tomllib.loads(_TOML.read_text()), "folder": "."}
    for place in _places(table):
        changed = _changed(table, place, wrong)
        try:
            Project.model_validate(changed)
            strict = []
        except ValidationError as error:
            strict = faults_of(error, Project)
        before = deepcopy(changed)
        result = mended(changed, Project)
        assert isinstance(result.value, Project)
        assert result.faults == strict, place
        assert changed == before


def test_an_empty_project_is_mended() -> None:
    result = mended({"folder": "."}, Project)
    assert result.faults == ["name: is missing", "tasks: is missing", "features: is missing"]
