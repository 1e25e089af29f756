"""Which files an ONNX file's weights lie in, against what onnx itself writes."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from teacher_cache.kinds.onnx_weights import NotOnnxError, weight_files


def _outside(name: str, location: str) -> TensorProto:
    tensor = numpy_helper.from_array(np.ones(3, np.float32), name)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("offset", "0"), ("location", location), ("length", "12")):
        tensor.external_data.add(key=key, value=value)
    return tensor


def _graph(location: str, *nodes: Any) -> onnx.GraphProto:
    return helper.make_graph(list(nodes), "g", [], [], initializer=[_outside("w", location)])


def _everywhere() -> tuple[onnx.ModelProto, list[str]]:
    """A model with a file of its own at every place that may hold a tensor."""
    sparse = helper.make_sparse_tensor(_outside("v", "sparse.bin"), _outside("i", "indices.bin"), [3])
    attributes = {
        "value": _outside("c", "value.bin"),
        "values": [_outside("l", "list.bin")],
        "body": _graph("body.bin", helper.make_node("Constant", [], ["x"], value=_outside("d", "deep.bin"))),
        "bodies": [_graph("bodies.bin")],
        "sparse": sparse,
    }
    model = helper.make_model(_graph("main.bin", helper.make_node("If", [], ["y"], **attributes)))
    tensors = _outside("v", "s.bin"), _outside("i", "si.bin")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(*tensors, [3]))
    function = model.functions.add(name="f", domain="d")
    function.node.append(helper.make_node("Constant", [], ["z"], value=_outside("f", "function.bin")))
    function.attribute_proto.append(helper.make_attribute("a", _outside("fa", "attribute.bin")))
    training = model.training_info.add()
    training.initialization.CopyFrom(_graph("init.bin"))
    training.algorithm.CopyFrom(_graph("algorithm.bin"))
    names = "value list body deep bodies sparse indices main s si function attribute init algorithm"
    return model, sorted(f"{name}.bin" for name in names.split())


def test_every_place_of_a_tensor_is_looked_at(tmp_path: Path) -> None:
    model, names = _everywhere()
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    assert weight_files(tmp_path / "m.onnx") == names


def test_a_file_without_other_files_has_none(tmp_path: Path) -> None:
    onnx.save(helper.make_model(helper.make_graph([], "g", [], [])), tmp_path / "m.onnx")
    assert weight_files(tmp_path / "m.onnx") == []


@pytest.mark.parametrize("location", ["../secret.bin", "/etc/passwd", "a/../../b", "nul\0.bin"])
def test_weights_outside_the_folder_are_refused(tmp_path: Path, location: str) -> None:
    (tmp_path / "m.onnx").write_bytes(helper.make_model(_graph(location)).SerializeToString())
    with pytest.raises(NotOnnxError, match="lies outside its folder"):
        weight_files(tmp_path / "m.onnx")


def test_weights_in_a_loop_of_links_are_found_when_they_are_read(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(helper.make_model(_graph("loop")).SerializeToString())
    (tmp_path / "loop").symlink_to("loop")
    assert weight_files(tmp_path / "m.onnx") == ["loop"]


@given(data=st.binary(min_size=1, max_size=60), cut=st.integers(0, 400), flipped=st.integers(0, 10_000))
def test_no_bytes_break_it(tmp_path_factory: Any, data: bytes, cut: int, flipped: int) -> None:
    whole = bytearray(_everywhere()[0].SerializeToString())
    whole[flipped % len(whole)] ^= 1 + flipped % 255
    path = tmp_path_factory.getbasetemp() / "odd.onnx"
    for odd in (data, bytes(whole), bytes(whole[: max(1, len(whole) - cut)])):
        path.write_bytes(odd)
        with suppress(NotOnnxError):
            assert isinstance(weight_files(path), list)
