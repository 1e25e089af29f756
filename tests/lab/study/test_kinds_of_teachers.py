"""The simulated pair's own teacher through all four kinds: equal logits, and equal students of equal logits."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from numpy.typing import NDArray
from onnx import numpy_helper

from lab.pairs.source import TeacherDesign, TeacherInput
from lab.pairs.teacher_network import TeacherNetwork
from lab.study.study_log import write_log
from lab.study.teachers import requests_of
from runtime.telemetry import StopSignal
from stream.events import TeacherRequest
from student.learn.config import PublishConfig
from student.learn.train import run_training
from student.versions.registry import Registry
from teacher_cache.backfill import backfill
from teacher_cache.cache import LogitCache
from teacher_cache.config import TeacherConfig
from teacher_cache.domain_map import DomainMap
from teacher_cache.onnx_teacher import OnnxModel
from teacher_cache.request_scorer import RequestScorer
from teacher_cache.teacher import load_teacher
from tests.lab.study.conftest import Pair, no_progress
from tests.lab.study.test_cell import STEP, _Source
from tests.teacher_cache.v2_server import V2Server, running

KINDS = ("onnx", "torch_export", "server, binary", "server, JSON", "dump")
_LEARNT = 400


class Sister(torch.nn.Module):
    """The pair's network with the weights of its ONNX file, and that file's outputs."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        graph = onnx.load(path).graph
        constants = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
        inputs = [_input(one, constants) for one in graph.input]
        trunk = [len(constants[f"trunk.{n}.bias"]) for n in (0, 1)]
        self.heads = [one.name for one in graph.output]
        design = TeacherDesign(inputs=inputs, heads=dict.fromkeys(self.heads, "binary"), trunk=trunk)
        numbers = [one.name for one in inputs if not one.codes]
        scales = {n: (float(constants[f"{n}.mean"]), float(constants[f"{n}.deviation"])) for n in numbers}
        self.network = TeacherNetwork(design, scales)
        state = {name: constants[_constant(name)] for name in self.network.state_dict()}
        self.network.load_state_dict({name: torch.from_numpy(one.copy()) for name, one in state.items()})

    def forward(self, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        codes = {one.name: one.codes for one in self.network.design.inputs if one.codes}
        safe = {
            name: torch.where((value >= 0) & (value < codes[name]), value, 0) if name in codes else value
            for name, value in inputs.items()
        }
        output_BT = self.network(safe)
        return {head: output_BT[:, t] for t, head in enumerate(self.heads)}


def _input(told: Any, constants: Mapping[str, Any]) -> TeacherInput:
    table = constants.get(f"{told.name}.table")
    shape = [one.dim_value for one in told.type.tensor_type.shape.dim]
    return TeacherInput(
        name=told.name,
        table="rows",
        codes=None if table is None else len(table),
        width=shape[1] if len(shape) == 2 else 1,
        logarithm=f"{told.name}.one" in constants,
    )


def _constant(name: str) -> str:
    parts = name.split(".")
    return f"{parts[1]}.table" if parts[0] == "embeddings" else name


def _export(pair: Pair, path: Path) -> None:
    module = Sister(pair.project.folder / "teacher.onnx").eval()
    rows = torch.export.Dim("rows")
    example, shapes = {}, {}
    for one in module.network.design.inputs:
        size = (3,) if one.width == 1 else (3, one.width)
        example[one.name] = torch.zeros(size, dtype=torch.int64 if one.codes else torch.float32)
        shapes[one.name] = {0: rows}
    torch.export.save(torch.export.export(module, (example,), dynamic_shapes=(shapes,)), path)


def _served(pair: Pair) -> V2Server:
    model = OnnxModel(pair.project.folder / "teacher.onnx")
    types = {"tensor(int64)": "INT64", "tensor(float)": "FP32"}

    def told(tensors: Any) -> list[dict[str, Any]]:
        shapes = [[-1 if isinstance(size, str) else size for size in one.shape] for one in tensors]
        return [
            {"name": one.name, "datatype": types[one.type], "shape": shape}
            for one, shape in zip(tensors, shapes, strict=True)
        ]

    names = [one.name for one in model.outputs]
    return V2Server(
        told(model.inputs), told(model.outputs), lambda feeds: dict(zip(names, model.run(names, feeds), strict=True))
    )


def _dump(pair: Pair, path: Path, requests: list[TeacherRequest], logit_NT: NDArray[np.float32]) -> None:
    columns = {task.output: logit_NT[:, t] for t, task in enumerate(pair.project.teacher.tasks)}
    keys = {
        "viewer": [request.user_id for request in requests],
        "clip": [request.item_id for request in requests],
        "surface": [request.context["device"] for request in requests],
    }
    pq.write_table(pa.table(keys | columns), path)


@contextmanager
def _config(kind: str, pair: Pair, folder: Path) -> Iterator[TeacherConfig]:
    """The pair's teacher as this kind; what it needs is in `folder`."""
    own = pair.project.teacher
    if kind == "onnx":
        yield own.model_copy(update={"onnx": pair.project.folder / "teacher.onnx"})
        return
    table = own.model_dump(exclude={"onnx", "torch_export", "server", "dump"})
    if kind == "torch_export":
        _export(pair, folder / "teacher.pt2")
        inputs = {f"inputs_{name}": one for name, one in table["inputs"].items()}
        yield TeacherConfig.model_validate({**table, "torch_export": folder / "teacher.pt2", "inputs": inputs})
    elif kind == "dump":
        requests = requests_of(pair.log)
        _dump(pair, folder / "logits.parquet", requests, _scored(pair, own, pair.project.folder))
        inputs = {
            "viewer": {"kind": "feature", "feature": "user_id", "default": ""},
            "clip": {"kind": "feature", "feature": "item_id", "default": -1},
            "surface": {"kind": "feature", "feature": "context:device", "default": ""},
        }
        keys = {"viewer": "str", "clip": "int", "surface": "str"}
        dump = {"path": folder / "logits.parquet", "model": "simulated-video", "keys": keys}
        yield TeacherConfig.model_validate({**table, "dump": dump, "inputs": inputs})
    else:
        server = _served(pair)
        if kind == "server, JSON":
            server.extensions = []
        with running(server):
            told = {"url": server.url, "model": "sister", "batch_rows": 1024}
            yield TeacherConfig.model_validate({**table, "server": told})


def _scorer(pair: Pair, config: TeacherConfig, folder: Path) -> RequestScorer:
    teacher = load_teacher(config, folder)
    return RequestScorer(teacher, DomainMap(config, folder, teacher, pair.spec), pair.spec)


def _scored(pair: Pair, config: TeacherConfig, folder: Path) -> NDArray[np.float32]:
    scored = _scorer(pair, config, folder).score(requests_of(pair.log))
    assert scored is not None
    assert not scored.refused
    return scored.logit_BT


def _student(pair: Pair, scorer: RequestScorer, redis_url: str, folder: Path) -> Mapping[str, NDArray[Any]]:
    """All tensors of the learner that has learnt the log with the scorer's logits."""
    tasks = [task.name for task in pair.project.teacher.tasks]
    cache = LogitCache(redis_url, f"pair:{folder.name}", tasks, 3600)
    backfill(requests_of(pair.log), scorer, cache, None, progress=no_progress)
    records = pair.log.records[: _LEARNT // STEP * STEP]
    write_log(folder / "log", records)
    registry, stop = Registry(folder / "versions"), StopSignal()
    run_training(
        setup=pair.project.learner_setup(pair.spec),
        publish=PublishConfig(every_seconds=60),
        teacher_version=pair.project.teacher.version,
        registry=registry,
        cache=cache,
        unshown=None,
        open_source=lambda _offsets: _Source(folder / "log", stop),
        stop=stop,
    )
    newest = registry.latest()
    assert newest is not None
    manifest, tensors, _ = registry.load_learner(newest)
    assert manifest.examples == len(records) > 300
    return tensors


@pytest.mark.timeout(300)
def test_all_kinds_give_the_same_logits_and_equal_logits_the_same_student(
    pair: Pair, redis_url: str, tmp_path: Path
) -> None:
    logits: dict[str, NDArray[np.float32]] = {}
    students: dict[str, Mapping[str, NDArray[Any]]] = {}
    for number, kind in enumerate(KINDS):
        folder = tmp_path / str(number)
        folder.mkdir()
        with _config(kind, pair, folder) as config:
            logits[kind] = _scored(pair, config, pair.project.folder)
            if logits[kind].tobytes() == logits["onnx"].tobytes():
                students[kind] = _student(pair, _scorer(pair, config, pair.project.folder), redis_url, folder)
    for kind in KINDS:
        np.testing.assert_allclose(logits[kind], logits["onnx"], rtol=0, atol=1e-5, err_msg=kind)
    assert set(students) >= set(KINDS) - {"torch_export"}  # another engine: its sums may differ in the last bits
    first = students["onnx"]
    for kind, tensors in students.items():
        assert tensors.keys() == first.keys()
        differ = [name for name, tensor in tensors.items() if tensor.tobytes() != first[name].tobytes()]
        assert differ == [], kind
