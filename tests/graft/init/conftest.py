"""Runs `graft init` in this process, and makes small teachers."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from onnx import TensorProto, helper

from graft.cli import cli

TYPES = {
    "int64": TensorProto.INT64,
    "float": TensorProto.FLOAT,
    "double": TensorProto.DOUBLE,
    "string": TensorProto.STRING,
}


def write_teacher(
    path: Path, inputs: Mapping[str, tuple[str, Sequence[Any]]], outputs: Sequence[str], batch: str | int = "B"
) -> Path:
    """A teacher whose outputs are all 0.5, whatever its inputs are: name -> type and the shape after the batch."""
    nodes = [helper.make_node("Shape", [next(iter(inputs))], ["shape"], start=0, end=1)]
    half = helper.make_tensor("half", TensorProto.FLOAT, [1], [0.5])
    nodes += [helper.make_node("ConstantOfShape", ["shape"], [name], value=half) for name in outputs]
    given = [helper.make_tensor_value_info(n, TYPES[kind], [batch, *shape]) for n, (kind, shape) in inputs.items()]
    made = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch]) for name in outputs]
    graph = helper.make_graph(nodes, "t", given, made)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def read_events(folder: Path) -> list[dict[str, Any]]:
    """The event file of a project, as replay reads it."""
    rows = pq.read_table(folder / "events.parquet").to_pylist()
    return [{name: value for name, value in row.items() if value is not None} for row in rows]


@pytest.fixture
def init(tmp_path: Path) -> Callable[..., Result]:
    """Runs `graft init` into tmp_path/shop; never with a traceback."""

    def run(*arguments: str | Path, answers: str | None = None) -> Result:
        result = CliRunner().invoke(cli, ["init", str(tmp_path / "shop"), *map(str, arguments)], input=answers)
        assert result.exception is None or isinstance(result.exception, SystemExit), repr(result.exception)
        return result

    return run


@pytest.fixture
def summary(init: Callable[..., Result]) -> Callable[..., dict[str, Any]]:
    """What `graft init --yes --json` says on standard output."""

    def run(*arguments: str | Path) -> dict[str, Any]:
        result = init(*arguments, "--yes", "--json")
        assert result.exit_code == 0, result.output
        found: dict[str, Any] = json.loads(result.stdout)
        return found

    return run
