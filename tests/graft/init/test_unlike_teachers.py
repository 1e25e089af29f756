"""Teachers as other programs leave them: each is mapped, or refused with one clear error; never a traceback."""

from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from tests.graft.init.conftest import write_teacher

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


REFUSED = {
    "a fixed batch": ({"age": ("float", [])}, ["like"], 1, "export the teacher with a dynamic batch axis"),
    "no output that is a task": ({"age": ("float", [])}, [], "B", "no output can be a task"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_file_that_cannot_be_a_teacher_is_an_error_and_writes_nothing(tmp_path, init, case):
    inputs, outputs, batch, fault = REFUSED[case]
    teacher = tmp_path / "t.onnx"
    if outputs:
        write_teacher(teacher, inputs, outputs, batch)
    else:
        wide = (TensorProto.FLOAT, ["B", 3])
        save(teacher, [helper.make_node("Identity", ["x"], ["y"])], [("x", *wide)], [("y", *wide)])
    result = init(*files(tmp_path), "--teacher", teacher, "--yes")
    assert fault in result.output
    assert result.exit_code == 2
    assert not (tmp_path / "shop").exists()


def test_a_file_that_is_no_onnx_is_an_error(tmp_path, init):
    (tmp_path / "t.onnx").write_text("x")
    result = init(*files(tmp_path), "--teacher", tmp_path / "t.onnx", "--yes")
    assert "is not an ONNX model that onnxruntime" in result.output
    assert result.exit_code == 2


def test_inputs_of_any_type_are_mapped_or_have_a_default_of_their_type(tmp_path, summary):
    inputs = {"item": ("string", []), "clicked_rate": ("double", [1]), "words": ("string", []), "code": ("int64", [])}
    teacher = write_teacher(tmp_path / "t.onnx", inputs, ["click", "price", "other"])
    said = summary(*files(tmp_path), "--teacher", teacher)
    assert said["faults"] == []
    assert said["teacher_inputs"]["item"] == "item_id"
    assert said["teacher_inputs"]["words"] is said["teacher_inputs"]["code"] is None


def test_an_input_that_refuses_an_end_of_the_range_has_its_default(tmp_path, summary):
    table = helper.make_tensor("table", TensorProto.FLOAT, [5], [0.1] * 5)
    node = helper.make_node("Gather", ["table", "item_id"], ["click"])
    item, click = ("item_id", TensorProto.INT64, ["B"]), ("click", TensorProto.FLOAT, ["B"])
    teacher = save(tmp_path / "t.onnx", [node], [item], [click], [table])
    (tmp_path / "in.csv").write_text(HEAD + "1,3,1700000000,1\n1,9,1700000001,0\n")
    said = summary("--events", tmp_path / "in.csv", "--teacher", teacher)
    assert said["teacher_inputs"] == {"item_id": None}
    assert "item_id has 9, which the teacher refuses" in (tmp_path / "shop" / "graft.toml").read_text()
