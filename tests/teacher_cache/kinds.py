"""One small teacher in each of the three kinds, and the row that none of them has.

Inputs: user in 0..4 and item in 0..6. like = user + item / 8, rating = user * item - 3; item_vector = [item, -item, 1].
The item 6 has a rating that is not finite.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
from onnx import TensorProto, helper, numpy_helper

from teacher_cache.kinds.onnx_teacher import OnnxModel
from tests.teacher_cache.v2_server import RefusalError, V2Server, running

KINDS = ("onnx", "server, binary", "server, JSON", "dump")
USERS, ITEMS = 5, 7
BAD_ITEM = 6
LIKE_UI = np.add.outer(np.arange(USERS), np.arange(ITEMS) / 8).astype(np.float32)
RATING_UI = (np.multiply.outer(np.arange(USERS), np.arange(ITEMS)) - 3).astype(np.float32)
RATING_UI[:, BAD_ITEM] = np.inf
VECTOR_IW = np.stack([np.arange(ITEMS), -np.arange(ITEMS), np.ones(ITEMS)], axis=1).astype(np.float32)
TASKS = [
    {"name": "like", "kind": "binary", "output": "like"},
    {"name": "stars", "kind": "regression", "output": "rating"},
]
VECTORS = [{"name": "taste", "output": "item_vector"}]


def save_onnx(path: Path) -> Path:
    """The teacher in ONNX; `like` has the shape [B, 1]."""
    tables = {
        "likes": LIKE_UI.reshape(-1, 1),
        "ratings": RATING_UI.reshape(-1),
        "vectors": VECTOR_IW,
        "width": np.array(ITEMS),
        "zero": np.array(0),
    }
    nodes = [
        helper.make_node("GreaterOrEqual", ["item", "width"], ["beyond"]),
        helper.make_node("Gather", ["vectors", "item"], ["item_vector"]),
        helper.make_node("Mul", ["user", "width"], ["first"]),
        helper.make_node("Add", ["first", "item"], ["place"]),
        helper.make_node("Gather", ["likes", "place"], ["like"]),
        helper.make_node("Gather", ["ratings", "place"], ["rating"]),
    ]
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, ["B"]) for name in ("user", "item")]
    outputs = [
        helper.make_tensor_value_info("like", TensorProto.FLOAT, ["B", 1]),
        helper.make_tensor_value_info("rating", TensorProto.FLOAT, ["B"]),
        helper.make_tensor_value_info("item_vector", TensorProto.FLOAT, ["B", 3]),
    ]
    constants = [numpy_helper.from_array(table, name) for name, table in tables.items()]
    graph = helper.make_graph(nodes[1:], "teacher", inputs, outputs, constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def save_dump(path: Path, users: range = range(USERS), **columns: Any) -> Path:
    """All the rows of these users; `columns` replace others."""
    user_N, item_N = (one.reshape(-1) for one in np.meshgrid(users, np.arange(ITEMS), indexing="ij"))
    table = {
        "user": user_N,
        "item": item_N,
        "like": LIKE_UI[user_N, item_N],
        "rating": RATING_UI[user_N, item_N],
        "item_vector": list(VECTOR_IW[item_N]),
    }
    path.parent.mkdir(exist_ok=True)
    pq.write_table(pa.table(table | columns), path)
    return path


def v2_server(folder: Path) -> V2Server:
    """A server of the ONNX file, which answers 400 to a row that it cannot compute."""
    model = OnnxModel(save_onnx(folder / "served.onnx"))

    def compute(feeds: Mapping[str, Any]) -> dict[str, Any]:
        names = [one.name for one in model.outputs]
        try:
            return dict(zip(names, model.run(names, feeds), strict=True))
        except Exception as error:
            raise RefusalError(400, str(error)) from error

    inputs = [{"name": name, "datatype": "INT64", "shape": [-1]} for name in ("user", "item")]
    outputs = [
        {"name": "like", "datatype": "FP32", "shape": [-1, 1]},
        {"name": "rating", "datatype": "FP32", "shape": [-1]},
        {"name": "item_vector", "datatype": "FP32", "shape": [-1, 3]},
    ]
    return V2Server(inputs, outputs, compute)


@contextmanager
def teacher_table(kind: str, folder: Path) -> Iterator[dict[str, Any]]:
    """What stands in [teacher] for this kind, whose files are in `folder`, while its server runs."""
    table: dict[str, Any] = {"version": "t1", "tasks": TASKS, "vectors": VECTORS, "inputs": {}}
    if kind == "onnx":
        yield {**table, "onnx": save_onnx(folder / "teacher.onnx").name}
    elif kind == "dump":
        save_dump(folder / "logits" / "all.parquet")
        keys = {"user": "int", "item": "int"}
        yield {**table, "dump": {"path": "logits", "model": "sister", "keys": keys}}
    else:
        server = v2_server(folder)
        if kind == "server, JSON":
            server.extensions = []
        with running(server):
            yield {**table, "server": {"url": server.url, "model": "sister", "batch_rows": 100}}
