"""Which outputs look like probabilities."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from teacher_cache.config import TeacherTask
from teacher_cache.domain.domain_map_faults import probability_warnings
from teacher_cache.kinds.onnx_teacher import open_onnx

X = {"x": np.linspace(-4, 4, 50, dtype=np.float32)}


def _teacher(path: Path, kind: str, operator: str):
    value = helper.make_tensor_value_info
    given, made = value("x", TensorProto.FLOAT, ["B"]), value("click", TensorProto.FLOAT, ["B"])
    graph = helper.make_graph([helper.make_node(operator, ["x"], ["click"])], "t", [given], [made])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    tasks = [TeacherTask(name="buy", kind=kind, output="click")]
    return open_onnx(path, tasks), tasks


def test_a_sigmoid_is_told_with_its_range_and_what_to_do(tmp_path):
    told = probability_warnings(*_teacher(tmp_path / "t.onnx", "binary", "Sigmoid"), X)
    assert told == {
        "buy": "its output click is from 0.018 to 0.982 on 50 rows, which looks like a probability; a binary task "
        "needs the logit: docs/export-a-teacher.md tells how to export it"
    }


@pytest.mark.parametrize(
    ("kind", "operator"), [("binary", "Identity"), ("regression", "Sigmoid"), ("binary", "Log")], ids=str
)
def test_a_logit_a_share_that_is_to_be_learnt_and_rows_that_are_refused_are_not(tmp_path, kind, operator):
    assert probability_warnings(*_teacher(tmp_path / "t.onnx", kind, operator), X) == {}


def test_one_value_for_all_rows_says_nothing(tmp_path):
    rows = {"x": np.zeros(50, np.float32)}
    assert probability_warnings(*_teacher(tmp_path / "t.onnx", "binary", "Sigmoid"), rows) == {}


@pytest.mark.parametrize(
    ("kind", "scale", "is_told"), [("binary", 50, True), ("binary", 8, False), ("regression", 50, False)]
)
def test_logits_that_are_certainties_are_told(tmp_path, kind, scale, is_told):
    rows = {"x": X["x"] * np.float32(scale)}
    told = probability_warnings(*_teacher(tmp_path / "t.onnx", kind, "Identity"), rows)
    assert [text.partition(" rows: ")[0] for text in told.values()] == (
        ["its output click is beyond 20 in size on 92% of 50"] if is_told else []
    )
