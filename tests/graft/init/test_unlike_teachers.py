"""Teachers whose inputs and outputs are called and shaped as other programs leave them."""

from pathlib import Path

import onnx
from onnx import TensorProto, helper

HEAD = "user_id,item_id,timestamp,clicked\n"
LOG = HEAD + "".join(f"u{n % 7},i{n % 5},{1_700_000_000 + n},{n % 2}\n" for n in range(60))


def files(folder: Path) -> list[str | Path]:
    (folder / "log.csv").write_text(LOG)
    (folder / "users.csv").write_text("user_id,age\n" + "".join(f"u{n},{20 + n}\n" for n in range(7)))
    (folder / "items.csv").write_text("item_id,price\n" + "".join(f"i{n},{n}.5\n" for n in range(5)))
    return ["--events", folder / "log.csv", "--users", folder / "users.csv", "--items", folder / "items.csv"]


def save(path, nodes, inputs, outputs, numbers=()):
    value = helper.make_tensor_value_info
    graph = helper.make_graph(nodes, "t", [value(*one) for one in inputs], [value(*one) for one in outputs], numbers)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def test_names_with_spaces_an_int32_and_batch_axes_of_three_names_are_mapped(tmp_path, summary):
    nodes = [
        helper.make_node("Cast", ["user age"], ["years"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["years", "Price (EUR)"], ["click score"]),
    ]
    inputs = [("user age", TensorProto.INT32, ["unk__1"]), ("Price (EUR)", TensorProto.FLOAT, ["unk__2"])]
    teacher = save(tmp_path / "t.onnx", nodes, inputs, [("click score", TensorProto.FLOAT, ["unk__3"])])
    said = summary(*files(tmp_path), "--teacher", teacher)
    assert said["faults"] == []
    assert said["teacher_inputs"] == {"user age": "user_profile:age", "Price (EUR)": "item_profile:price"}
    assert said["profiles"] == {"user_teacher": ["click_score"], "item_teacher": ["click_score"]}


def test_an_output_that_is_a_constant_beside_a_task_is_not_used_and_said_so(tmp_path, summary):
    number = helper.make_tensor("number", TensorProto.FLOAT, [1], [3.0])
    nodes = [helper.make_node("Identity", ["age"], ["click"]), helper.make_node("Identity", ["number"], ["version"])]
    outputs = [("click", TensorProto.FLOAT, ["B"]), ("version", TensorProto.FLOAT, [1])]
    teacher = save(tmp_path / "t.onnx", nodes, [("age", TensorProto.FLOAT, ["B"])], outputs, [number])
    said = summary(*files(tmp_path), "--teacher", teacher)
    assert said["faults"] == []
    assert "the teacher's output version is not used: a fixed number of rows" in said["only_you_know"]
