"""A pair's own teacher in each of the three kinds."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from features.spec import FeatureSpec
from graft.project import Project
from stream.events import TeacherRequest
from teacher_cache.config import TeacherConfig
from teacher_cache.domain.domain_map import DomainMap
from teacher_cache.kinds.load import load_teacher
from teacher_cache.kinds.onnx_teacher import OnnxModel
from tests.teacher_cache.v2_server import V2Server, running

KINDS = ("onnx", "server, binary", "server, JSON", "dump")
_TYPES = {"tensor(int64)": "INT64", "tensor(float)": "FP32"}


def served(onnx_file: Path) -> V2Server:
    """A server of the file."""
    model = OnnxModel(onnx_file)

    def told(tensors: Any) -> list[dict[str, Any]]:
        return [
            {
                "name": one.name,
                "datatype": _TYPES[one.type],
                "shape": [-1 if isinstance(n, str) else n for n in one.shape],
            }
            for one in tensors
        ]

    names = [one.name for one in model.outputs]
    return V2Server(
        told(model.inputs), told(model.outputs), lambda feeds: dict(zip(names, model.run(names, feeds), strict=True))
    )


@contextmanager
def config_of(
    kind: str, project: Project, spec: FeatureSpec, requests: list[TeacherRequest], folder: Path
) -> Iterator[TeacherConfig]:
    """The project's teacher as this kind; its files are in `folder`. A dump has these requests."""
    own = project.teacher
    assert own.onnx is not None
    onnx_file = project.folder / own.onnx
    table = own.model_dump(exclude={"onnx", "server", "dump"})
    if kind == "onnx":
        yield own.model_copy(update={"onnx": onnx_file})
    elif kind == "dump":
        keys = {"viewer": ("user_id", spec.user_id_type), "work": ("item_id", spec.item_id_type)}
        keys |= {name: (f"context:{name}", one.dtype) for name, one in project.features.context.items()}
        _save_dump(folder / "logits.parquet", own, requests, outputs_of(own, project.folder, spec, requests))
        dump = {
            "path": folder / "logits.parquet",
            "model": "m",
            "keys": {name: kind for name, (_, kind) in keys.items()},
        }
        inputs = {
            name: {"kind": "feature", "feature": feature, "default": "" if kind == "str" else -1}
            for name, (feature, kind) in keys.items()
        }
        yield TeacherConfig.model_validate({**table, "dump": dump, "inputs": inputs})
    else:
        server = served(onnx_file)
        server.extensions = ["binary_tensor_data"] if kind == "server, binary" else []
        with running(server):
            told = {"url": server.url, "model": "sister", "batch_rows": 1024}
            yield TeacherConfig.model_validate({**table, "server": told})


def _save_dump(
    path: Path, config: TeacherConfig, requests: list[TeacherRequest], found: Mapping[str, NDArray[np.float32]]
) -> None:
    columns: dict[str, Any] = {
        "viewer": [request.user_id for request in requests],
        "work": [request.item_id for request in requests],
        **{name: [request.context[name] for request in requests] for name in requests[0].context},
    }
    columns |= {task.output: found[task.name] for task in config.tasks}
    columns |= {vector.output: list(found[vector.name]) for vector in config.vectors}
    pq.write_table(pa.table(columns), path)


def outputs_of(
    config: TeacherConfig, folder: Path, spec: FeatureSpec, requests: list[TeacherRequest]
) -> dict[str, NDArray[np.float32]]:
    """What the teacher says of all requests, by task and vector."""
    teacher = load_teacher(config, folder)
    columns = spec.columns_of([request.features for request in requests])
    return teacher.describe(DomainMap(config, folder, teacher, spec).map_rows(columns).inputs)
