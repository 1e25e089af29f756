"""The project folder of a run: the pair of fixtures/simulated, with the pace and the topics of this run."""

import json
import re
import shutil
import tomllib
from collections.abc import Mapping
from pathlib import Path

import prometheus_client  # noqa: F401 - before Feast's import, which else turns every metric into a file

from features import store
from graft.project import FILE_NAME, Project, load_project

Scalar = str | int | float | bool

_FIXTURE = Path(__file__).parents[2] / "fixtures/simulated"

LOUDNESS = "loudness"
"""A context feature that this pair has beside the fixture's: a number that comes with the event."""


def make_project(
    folder: Path, redis_url: str, window_seconds: float, tables: Mapping[str, Mapping[str, Scalar]]
) -> Project:
    """Write the folder, with both tasks' windows and these values in its tables, and register its features."""
    shutil.copytree(_FIXTURE, folder, ignore=shutil.ignore_patterns("__pycache__", "*.db", "feature_spec.json"))
    path = folder / FILE_NAME
    text = path.read_text(encoding="utf-8")
    text = _replaced(text, "window_seconds = 10", f"window_seconds = {window_seconds:g}")
    text = _replaced(text, "dense = [", f'dense = [\n    "context:{LOUDNESS}",')
    device = 'device = { dtype = "str", default = "phone" }'
    text = _replaced(text, device, f'{device}\n{LOUDNESS} = {{ dtype = "float", default = 0.0 }}')
    for table, values in tables.items():
        text = with_values(text, table, values)
    path.write_text(text, encoding="utf-8")
    project = load_project(folder)
    store.apply(project.repo, redis_url, project.features)
    return project


def with_values(text: str, table: str, values: Mapping[str, Scalar]) -> str:
    """`text` with `values` in its top-level `[table]`, which moves to the end; its other keys must be scalars too."""
    merged = {**tomllib.loads(text).get(table, {}), **values}
    section = re.compile(rf"^\[{re.escape(table)}\][^\n]*\n(?:(?!\[)[^\n]*\n?)*", re.MULTILINE)
    lines = "".join(f"{key} = {json.dumps(value)}\n" for key, value in merged.items())
    return f"{section.sub('', text).rstrip()}\n\n[{table}]\n{lines}"


def fill_features(project: Project, redis_url: str) -> None:
    """Load the pair's users and items into Redis."""
    store.materialize(project.repo, redis_url, project.features)


def _replaced(text: str, old: str, new: str) -> str:
    assert old in text, f"{_FIXTURE / FILE_NAME} has no {old!r}"
    return text.replace(old, new)
