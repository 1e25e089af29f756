"""A trained teacher as an ONNX file, its graph built node by node: no exporter, no tracing.

Inputs carry the design's names: codes int64 [B], numbers float32 [B] or [B, W]. Each head is an output float32 [B] of
its name. A code outside of its table reads row 0, the unknown.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from graft.fit.design import DesignInput
from graft.fit.network import Taste, TeacherNetwork
from runtime.folder import replacing

_OPSET = 17
_IR_VERSION = 8  # read by every onnxruntime since 1.12


class _Graph:
    """Collects nodes and constants; every method returns the name of its result."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, name: str, values: NDArray[np.generic]) -> str:
        self.constants.append(numpy_helper.from_array(values, name))
        return name

    def node(self, kind: str, inputs: Sequence[str], result: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, list(inputs), [result], name=result, **attributes))
        return result


def save_onnx(network: TeacherNetwork, path: Path) -> None:
    """Write the network to `path`; a file there is replaced at once."""
    graph = _Graph()
    columns = [_column(graph, network, spec) for spec in network.design.columns]
    hidden = graph.node("Concat", columns, "features", axis=1)
    for i, layer in enumerate(network.trunk):
        hidden = graph.node("Relu", [_linear(graph, f"trunk.{i}", layer, hidden)], f"trunk.{i}.active")
    heads, vectors = _linear(graph, "heads", network.heads, hidden), []
    if network.taste is not None:
        heads = _tasted(graph, network, network.taste, heads)
        vectors = [(network.taste.design.output, network.taste.design.width)]
    for t, head in enumerate(network.design.heads):
        graph.node("Gather", [heads, graph.constant(f"{head}.position", np.asarray(t))], head, axis=1)
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "teacher",
            [_signature(spec) for spec in network.design.inputs],
            [
                *(helper.make_tensor_value_info(head, TensorProto.FLOAT, ["B"]) for head in network.design.heads),
                *(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["B", width]) for name, width in vectors),
            ],
            graph.constants,
        ),
        producer_name="graft",
        ir_version=_IR_VERSION,
        opset_imports=[helper.make_opsetid("", _OPSET)],
    )
    onnx.checker.check_model(model)
    with replacing(path) as file:
        file.write(model.SerializeToString(deterministic=True))


def _signature(spec: DesignInput) -> onnx.ValueInfoProto:
    kind = TensorProto.FLOAT if spec.codes is None else TensorProto.INT64
    return helper.make_tensor_value_info(spec.name, kind, ["B"] if spec.width == 1 else ["B", spec.width])


def _column(graph: _Graph, network: TeacherNetwork, spec: DesignInput) -> str:
    """What the trunk sees of an input, [B, width or the embedding's]."""
    name = spec.name
    if spec.codes is not None:
        table = graph.constant(f"{name}.table", _array(network.embeddings[name].weight))
        return graph.node("Gather", [table, _code(graph, name, spec.codes)], f"{name}.embedded", axis=0)
    mean, deviation = (
        graph.constant(f"{name}.{part}", np.asarray(number, np.float32))
        for part, number in zip(("mean", "deviation"), network.scales[name], strict=True)
    )
    shape = graph.constant(f"{name}.shape", np.asarray([-1, spec.width], np.int64))
    numbers = name
    if spec.logarithm:
        one = graph.constant(f"{name}.one", np.asarray(1.0, np.float32))
        numbers = graph.node("Log", [graph.node("Add", [name, one], f"{name}.plus_one")], f"{name}.logarithm")
    centred = graph.node("Sub", [numbers, mean], f"{name}.centred")
    scaled = graph.node("Div", [centred, deviation], f"{name}.scaled")
    return graph.node("Reshape", [scaled, shape], f"{name}.column")


def _code(graph: _Graph, name: str, codes: int) -> str:
    """The code of an input; one outside of its table is 0."""
    zero = graph.constant(f"{name}.zero", np.asarray(0, np.int64))
    top = graph.constant(f"{name}.codes", np.asarray(codes, np.int64))
    low = graph.node("GreaterOrEqual", [name, zero], f"{name}.not_negative")
    high = graph.node("Less", [name, top], f"{name}.not_above")
    inside = graph.node("And", [low, high], f"{name}.inside")
    return graph.node("Where", [inside, name, zero], f"{name}.safe")


def _linear(graph: _Graph, name: str, layer: Any, hidden: str) -> str:
    weight = graph.constant(f"{name}.weight", _array(layer.weight))
    bias = graph.constant(f"{name}.bias", _array(layer.bias))
    return graph.node("Gemm", [hidden, weight, bias], name, transB=1)


def _tasted(graph: _Graph, network: TeacherNetwork, taste: Taste, heads: str) -> str:
    """The heads with the inner product added; the item's vector is an output."""
    codes = {spec.name: spec.codes or 0 for spec in network.design.inputs}
    user_code, item_code = _code(graph, taste.design.user, codes[taste.design.user]), f"{taste.design.item}.safe"
    of_users = graph.constant("taste.users", _array(taste.users.weight))
    of_items = graph.constant("taste.items", _array(taste.items.weight))
    user = graph.node("Gather", [of_users, user_code], "taste.user", axis=0)
    item = graph.node("Gather", [of_items, item_code], taste.design.output, axis=0)
    axis = graph.constant("taste.axis", np.asarray([1], np.int64))
    product = graph.node("ReduceSum", [graph.node("Mul", [user, item], "taste.products"), axis], "taste.sum")
    scale = graph.constant("taste.scale", _array(taste.scale_T).reshape(1, -1))
    return graph.node("Add", [heads, graph.node("Mul", [product, scale], "taste.scaled")], "heads.tasted")


def _array(parameter: Any) -> NDArray[np.float32]:
    return np.asarray(parameter.detach().numpy(), np.float32)
