"""Profiles in a new project: written for what the teacher tells apart, and for nothing else."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from features.config import ProfileConfig
from graft.project import load_project

LENGTHS = [80 + 5 * i for i in range(20)]
AGES = [20 + 3 * i for i in range(10)]
FILES = ["--events", "log.csv", "--users", "people.csv", "--items", "films.csv"]


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    films = "".join(f"{i},{length}\n" for i, length in enumerate(LENGTHS))
    Path("films.csv").write_text(f"movie_id,length\n{films}")
    people = "".join(f"u{i},{age}\n" for i, age in enumerate(AGES))
    Path("people.csv").write_text(f"user_id,age\n{people}")
    rows = "".join(f"u{i % 10},{i % 20},{1_700_000_000 + i},{i % 3 % 2}\n" for i in range(60))
    Path("log.csv").write_text(f"user_id,movie_id,timestamp,liked\n{rows}")


def _teacher(path: str, outputs: Sequence[str]) -> str:
    """`like` is a hundredth of the length, `see` a tenth of the age, `both` is both, `vector` the length, twice."""
    value = helper.make_tensor_value_info
    given = [value(name, TensorProto.FLOAT, ["B", 1]) for name in ("length", "age")]
    nodes = [
        helper.make_node("Mul", ["length", "hundredth"], ["like"]),
        helper.make_node("Mul", ["age", "tenth"], ["see"]),
        helper.make_node("Add", ["like", "see"], ["both"]),
        helper.make_node("Mul", ["like", "zero"], ["none"]),
        helper.make_node("Concat", ["length", "length"], ["vector"], axis=1),
        helper.make_node("Concat", ["length"] * 65, ["wide"], axis=1),
    ]
    widths = {"vector": 2, "wide": 65}
    made = [value(name, TensorProto.FLOAT, ["B", widths.get(name, 1)]) for name in outputs]
    constants: dict[str, Any] = {"hundredth": 0.01, "tenth": 0.1, "zero": 0.0}
    known = [helper.make_tensor(name, TensorProto.FLOAT, [], [number]) for name, number in constants.items()]
    graph = helper.make_graph(nodes, "t", given, made, known)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def test_each_output_is_a_profile_of_what_it_follows_from_and_its_default_is_about_the_mean(tmp_path, summary):
    said = summary(*FILES, "--teacher", _teacher("t.onnx", ["like", "see", "both", "none", "vector", "wide"]))
    assert said["faults"] == []
    assert said["profiles"] == {"user_teacher": ["see", "both"], "item_teacher": ["like", "both", "vector"]}
    features = load_project(tmp_path / "shop").features
    assert features.profiles == [
        ProfileConfig(
            entity="user", push_source="user_teacher_push", references=200, columns={"see": "see", "both": "both"}
        ),
        ProfileConfig(
            entity="item",
            push_source="item_teacher_push",
            references=64,
            columns={"like": "like", "both": "both", "vector": "vector"},
        ),
    ]
    assert features.defaults["item_teacher:like"] == pytest.approx(np.mean(LENGTHS) / 100, rel=0.05)
    assert features.defaults["item_teacher:vector"] == pytest.approx([np.mean(LENGTHS)] * 2, rel=0.05)
    assert features.defaults["user_teacher:see"] == pytest.approx(np.mean(AGES) / 10, rel=0.05)
    assert {"user_teacher:see", "user_teacher:both", "item_teacher:like", "item_teacher:both"} <= set(features.dense)
    assert "item_teacher:vector" in features.embedding
    columns = "item_teacher:like, item_teacher:both, item_teacher:vector"
    assert f"features of what the teacher says of an item on average over users: {columns}" in said["notes"]


@pytest.mark.parametrize(
    ("options", "outputs", "why"),
    [
        (FILES[:4], ["like"], "that takes a table of users and one of items"),
        (FILES, ["none"], "what it says of each, with all else at its default, is the same"),
    ],
    ids=["no table of items", "a teacher that tells nothing apart"],
)
def test_where_a_profile_would_say_nothing_there_is_none(tmp_path, summary, options, outputs, why):
    said = summary(*options, "--teacher", _teacher("t.onnx", outputs))
    assert (said["faults"], said["profiles"]) == ([], {})
    assert load_project(tmp_path / "shop").features.profiles == []
    assert f"no feature of what the teacher says of a user or an item on average: {why}" in said["notes"]


def test_a_teacher_that_is_in_the_folder_already_has_profiles_too(tmp_path, summary):
    (tmp_path / "shop").mkdir()
    said = summary(*FILES, "--teacher", _teacher("shop/big.onnx", ["like"]))
    assert said["profiles"] == {"item_teacher": ["like"]}
