import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from prometheus_client import REGISTRY

from runtime.errors import ConfigurationError, InvalidInputError
from teacher_cache.config import TeacherConfig
from teacher_cache.kinds.load import load_teacher
from teacher_cache.teacher import TeacherOutputError, TensorSpec, counted_as_busy


def _inputs(rows, **changes):
    inputs = {
        "age_code": np.arange(rows, dtype=np.int64),
        "taste": np.ones((rows, 3), np.float32),
        "year": np.full(rows, 6, np.float32),
        "source_user": np.full(rows, 4, np.int64),
    }
    return inputs | changes


def _task(output, name="finish"):
    return {"name": name, "kind": "binary", "output": output}


def _load(tmp_path, *tasks):
    return load_teacher(TeacherConfig(version="t1", onnx=Path("teacher.onnx"), tasks=list(tasks), inputs={}), tmp_path)


def test_logits_come_in_the_order_of_the_tasks(teacher):
    logit_BT = teacher.score(_inputs(3))
    assert logit_BT.dtype == np.float32
    assert logit_BT.tolist() == [[3.0, 1.5], [4.0, 1.5], [5.0, 1.5]]


def test_the_signature_names_types_and_widths(teacher):
    assert teacher.inputs == {
        "age_code": TensorSpec(np.dtype(np.int64), 1),
        "taste": TensorSpec(np.dtype(np.float32), 3),
        "year": TensorSpec(np.dtype(np.float32), 1),
        "source_user": TensorSpec(np.dtype(np.int64), 1),
    }


def test_one_constant_stretched_over_the_rows_is_taken(teacher):
    stretched = np.broadcast_to(np.float32(6), (3,))
    assert teacher.score(_inputs(3, year=stretched))[:, 1].tolist() == [1.5, 1.5, 1.5]


def test_an_output_that_is_not_finite_names_task_and_row(teacher):
    inputs = _inputs(4, source_user=np.array([4, 0, 4, 0]))
    with pytest.raises(
        TeacherOutputError, match="teacher task rating: output of row 1 is inf, must be finite"
    ) as error:
        teacher.score(inputs)
    assert error.value.rows == (1, 3)


def test_rows_that_the_teacher_cannot_compute_are_named(save_onnx, tmp_path):
    save_onnx(
        {"code": (TensorProto.INT64, ["B"])},
        {"y": (TensorProto.FLOAT, ["B"])},
        [
            helper.make_node("Constant", [], ["table"], value_floats=[0.5, 1.5, 2.5]),
            helper.make_node("Gather", ["table", "code"], ["y"]),
        ],
    )
    teacher = _load(tmp_path, _task("y"))
    assert teacher.score({"code": np.array([2, 0])}).tolist() == [[2.5], [0.5]]
    with pytest.raises(
        TeacherOutputError, match=r"cannot compute row 1 \(2 of 5 rows\): .*out of data bounds"
    ) as error:
        teacher.score({"code": np.array([2, 7, 0, 1, 3])})
    assert error.value.rows == (1, 4)


def test_a_string_input_reaches_the_teacher(save_onnx, tmp_path):
    save_onnx(
        {"job": (TensorProto.STRING, ["B"])},
        {"known": (TensorProto.FLOAT, ["B"])},
        [
            helper.make_node("Constant", [], ["nurse"], value_string="nurse"),
            helper.make_node("Equal", ["job", "nurse"], ["is_nurse"]),
            helper.make_node("Cast", ["is_nurse"], ["known"], to=TensorProto.FLOAT),
        ],
        opset=19,
    )
    teacher = _load(tmp_path, _task("known"))
    assert teacher.inputs == {"job": TensorSpec(np.dtype(object), 1)}
    assert teacher.score({"job": np.array(["nurse", "émigré"], object)}).tolist() == [[1.0], [0.0]]


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigurationError, match=re.escape(f"teacher.onnx: {tmp_path / 'teacher.onnx'} is no file")):
        _load(tmp_path, _task("y"))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not a model"])
def test_a_file_that_is_not_onnx_is_refused(tmp_path, content):
    (tmp_path / "teacher.onnx").write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"is not an ONNX model that onnxruntime .* runs"):
        _load(tmp_path, _task("y"))


def test_a_missing_output_and_a_doubled_task_are_told_at_once_with_what_there_is(save_onnx, tmp_path):
    save_onnx()
    with pytest.raises(ConfigurationError) as error:
        _load(tmp_path, _task("finish_logit"), _task("love_logit", "love"), _task("rating_value"))
    assert error.value.faults == (
        "graft.toml: teacher.tasks.1.output: the teacher has no 'love_logit', it has finish_logit, rating_value",
        "graft.toml: teacher.tasks.2.name: 'finish' stands for an earlier task already; names must differ",
    )


def test_tensors_that_are_no_rows_are_told_at_once(save_onnx, tmp_path):
    save_onnx(
        {
            "fixed": (TensorProto.FLOAT, [8, 2]),
            "free": (TensorProto.FLOAT, ["B", "n"]),
            "flag": (TensorProto.BOOL, ["B"]),
        },
        {
            "wide": (TensorProto.FLOAT, [8, 2]),
            "code": (TensorProto.BOOL, ["B"]),
            "same": (TensorProto.FLOAT, ["B", "n"]),
        },
        [
            helper.make_node("Identity", ["fixed"], ["wide"]),
            helper.make_node("Identity", ["flag"], ["code"]),
            helper.make_node("Identity", ["free"], ["same"]),
        ],
    )
    with pytest.raises(ConfigurationError) as error:
        _load(tmp_path, _task("wide"), _task("code", "like"))
    rows = "[B], [B, 1] or [B, n] with a free B and a fixed n; export the teacher with a dynamic batch axis"
    types = "tensor(int64), tensor(int32), tensor(float), tensor(double), tensor(float16), tensor(string)"
    assert error.value.faults == (
        f"graft.toml: teacher.onnx: input fixed has shape [8, 2], allowed is {rows}",
        f"graft.toml: teacher.onnx: input free has shape ['B', 'n'], allowed is {rows}",
        f"graft.toml: teacher.onnx: input flag has type tensor(bool), allowed are {types}",
        "graft.toml: teacher.tasks.0.output: 'wide' has shape [8, 2], allowed are [B] and [B, 1]",
        "graft.toml: teacher.tasks.1.output: 'code' has type tensor(bool), allowed is a float tensor",
    )


def test_an_output_of_another_shape_than_declared_is_refused(save_onnx, tmp_path):
    save_onnx(
        {"x": (TensorProto.FLOAT, ["B", 2])},
        {"y": (TensorProto.FLOAT, ["N"])},
        [
            helper.make_node("Constant", [], ["flat"], value_ints=[-1]),
            helper.make_node("Reshape", ["x", "flat"], ["y"]),
        ],
    )
    teacher = _load(tmp_path, _task("y"))
    with pytest.raises(
        InvalidInputError, match=re.escape("output y has shape [6] for 3 rows, allowed are [3] and [3, 1]")
    ):
        teacher.score({"x": np.zeros((3, 2), np.float32)})


@pytest.mark.parametrize("location", ["../outside.bin", "ABSOLUTE", "link.bin"])
def test_weights_outside_the_project_folder_are_refused(save_onnx, tmp_path, location):
    outside = tmp_path.parent / "outside.bin"
    outside.write_bytes(np.ones(2, np.float32).tobytes())
    (tmp_path / "link.bin").symlink_to(outside)
    _save_with_weights_at(save_onnx, str(outside) if location == "ABSOLUTE" else location)
    with pytest.raises(ConfigurationError, match="which lies outside its folder"):
        _load(tmp_path, _task("y"))


def test_weights_beside_the_file_are_read(save_onnx, tmp_path):
    (tmp_path / "weights.bin").write_bytes(np.array([2, 3], np.float32).tobytes())
    _save_with_weights_at(save_onnx, "weights.bin")
    assert _load(tmp_path, _task("y")).score({"x": np.ones((1, 2), np.float32)}).tolist() == [[5.0]]


@pytest.mark.parametrize("change", [lambda file: file.write(bytes(1 << 16)), lambda file: file.truncate(0)])
def test_weights_that_are_written_over_do_not_change_a_teacher_that_is_open(save_onnx, tmp_path, change):
    weights = tmp_path / "weights.bin"
    weights.write_bytes(np.arange(1 << 14, dtype=np.float32).tobytes())
    path = save_onnx({"row": (TensorProto.INT64, ["B"])}, {"y": (TensorProto.FLOAT, ["B", 1])}, [])
    _add_weights(path, "weights.bin", [1 << 14, 1], helper.make_node("Gather", ["w", "row"], ["y"]))
    teacher = _load(tmp_path, _task("y"))
    with weights.open("r+b") as file:
        change(file)
    assert teacher.score({"row": np.array([1, 9_000])}).tolist() == [[1.0], [9_000.0]]


def _save_with_weights_at(save_onnx, location):
    path = save_onnx({"x": (TensorProto.FLOAT, ["B", 2])}, {"y": (TensorProto.FLOAT, ["B", 1])}, [])
    _add_weights(path, location, [2, 1], helper.make_node("MatMul", ["x", "w"], ["y"]))


def _add_weights(path, location, dims, node):
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=dims, data_location=TensorProto.EXTERNAL)
    weight.external_data.add(key="location", value=location)
    model = onnx.load(path)
    model.graph.node.append(node)
    model.graph.initializer.append(weight)
    path.write_bytes(model.SerializeToString())


def test_the_time_in_calls_of_the_teacher_is_counted_also_of_those_that_fail(monkeypatch):
    def counted():
        return REGISTRY.get_sample_value("graft_teacher_busy_seconds_total")

    before, clock = counted(), iter([1.0, 3.5, 10.0, 11.0])
    monkeypatch.setattr("teacher_cache.teacher.time.monotonic", lambda: next(clock))
    with counted_as_busy():
        pass
    with pytest.raises(OSError, match="away"), counted_as_busy():
        raise OSError("away")
    assert counted() - before == pytest.approx(3.5)


def test_onnxruntime_reports_nothing_and_leaves_nothing_in_the_home_folder(tmp_path: Path) -> None:
    """Since 1.32 it numbers the device there; where it cannot, it says so on standard error."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "ORT_"))}
    program = "import teacher_cache.kinds.onnx_teacher, sys; print('onnxruntime' in sys.modules)"
    argv = [sys.executable, "-c", program]

    ran = subprocess.run(argv, env=kept | {"HOME": str(tmp_path)}, capture_output=True, text=True, check=True)

    assert (ran.stdout, ran.stderr, [*tmp_path.iterdir()]) == ("True\n", "", [])
