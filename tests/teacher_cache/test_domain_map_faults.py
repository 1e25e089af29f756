"""What of a domain map is refused, and how it is told."""

import numpy as np
import pytest
from pydantic import ValidationError

from runtime.errors import ConfigurationError
from teacher_cache.config import TeacherConfig
from teacher_cache.domain.domain_map import DomainMap
from teacher_cache.domain.domain_map_faults import faults_of_inputs
from teacher_cache.teacher import TensorSpec
from tests.teacher_cache.domain_maps import FLOAT, INT, SPEC, TEXT, Signature, config_of

INT32 = TensorSpec(np.dtype(np.int32), 1)
PAIR, TRIPLE = (TensorSpec(np.dtype(np.float32), width) for width in (2, 3))


@pytest.fixture
def faults_of(tmp_path):
    """The faults of inputs against a signature, without the common beginning `graft.toml: teacher.inputs.`."""

    def find(signature, **inputs):
        features = {feature.name: feature for feature in SPEC.features}
        found = faults_of_inputs(config_of(**inputs), tmp_path, signature, features)
        assert all(fault.startswith("graft.toml: teacher.inputs.") for fault in found)
        return [fault.removeprefix("graft.toml: teacher.inputs.") for fault in found]

    return find


def test_the_map_is_refused_with_all_its_faults(tmp_path):
    with pytest.raises(ConfigurationError) as error:
        DomainMap(config_of(), tmp_path, Signature({"a": INT, "b": TEXT}), SPEC)
    assert len(error.value.faults) == 2


def test_a_clean_map_has_no_faults(config, tmp_path, teacher, spec):
    features = {feature.name: feature for feature in spec.features}
    assert faults_of_inputs(config, tmp_path, teacher.inputs, features) == []


def test_unmapped_and_unknown_inputs_are_told_at_once(faults_of):
    mapped = {"kind": "default", "default": 1}
    found = faults_of({"user_age": INT, "text": TEXT}, usr_age=mapped, zzz=mapped)
    assert [fault.partition("; give it")[0] for fault in found] == [
        "usr_age: the teacher has no such input, did you mean 'user_age'?",
        "zzz: the teacher has no such input, it has text, user_age",
        "user_age: the teacher's input of type int64 is not mapped",
        "text: the teacher's input of type string is not mapped",
    ]


_AGE, _JOB, _YEAR, _VECTOR = ({"feature": name} for name in ("users:age", "users:job", "items:year", "items:vector"))
_FORMS = [
    ("log", _AGE, INT, ".kind: 'log' cannot feed an input of type int64"),
    ("log", _AGE | {"add": float("inf")}, FLOAT, ".add: must be finite, got inf"),
    ("linear", _AGE | {"minimum": 2, "maximum": 1}, INT, ".minimum: must not be above maximum, 1.0, got 2.0"),
    ("linear", _AGE | {"maximum": 1.5}, INT, ".maximum: must be a whole number for an input of type int64, got 1.5"),
    ("linear", _AGE | {"multiply": 0.5, "add": float("inf")}, INT, ".multiply: must be a whole number"),
    ("linear", _YEAR, INT, ".feature: 'items:year' is of type float, from which 'linear' cannot make int64"),
    ("linear", _VECTOR, PAIR, ".kind: 'linear' cannot feed an input of type float32[2], allowed are default, feature"),
    ("feature", _AGE, TEXT, ".feature: 'users:age' is of type int, from which 'feature' cannot make string"),
    ("feature", _VECTOR, TRIPLE, ".feature: 'items:vector' has 2 elements, the teacher's input takes 3"),
    ("feature", {"feature": "users:agee"}, INT, ".feature: the feature spec has no 'users:agee', did you mean 'users:"),
    ("feature", {"feature": "?"}, INT, ".feature: the feature spec has no '?', it has items:vector, items:year, users"),
    ("hash", {"features": ["users:job", "users:jobb"], "buckets": 9}, INT, ".features.1: the feature spec has no"),
    ("hash", {"features": ["items:year"], "buckets": 3}, INT, ".features.0: 'items:year' is of type float"),
    ("hash", {"features": ["users:job"], "buckets": 2**31, "first": 1}, INT32, ".buckets: the last code, 2147483648,"),
    ("concat", {"features": ["users:job", "users:age"]}, INT, ".kind: 'concat' cannot feed an input of type int64"),
    ("bucket", _JOB | {"boundaries": [1], "codes": [0, 1]}, INT, ".feature: 'users:job' is of type str"),
    ("bucket", _AGE | {"boundaries": [5, 5], "codes": [0, 1, 2]}, INT, ".boundaries: must be finite and rise strictly"),
    ("bucket", _AGE | {"boundaries": [5, 6], "codes": [0, 1]}, INT, ".codes: 2 boundaries need 3 codes, got 2"),
    ("bucket", _AGE | {"boundaries": [5], "codes": [0, 1.5]}, INT, ".codes: every code must be a whole number of type"),
    ("lookup", _YEAR | {"table": {}}, INT, ".feature: 'items:year' is of type float, from which 'lookup' cannot make"),
    ("lookup", _JOB | {"table": {"a": 1}, "file": "t.json"}, INT, ": needs a table or a file, got both"),
    ("lookup", _JOB, INT, ": needs a table or a file, got neither"),
    ("lookup", _JOB | {"table": {"a": 1, "b": "c"}}, INT, ".table: every value must be a whole number of type int64,"),
    ("default", {"default": 3}, TEXT, ".default: must be a text, got 3"),
    ("default", {"default": 0.5}, INT, ".default: must be a whole number of type int64, got 0.5"),
    ("default", {"default": 2**31}, INT32, ".default: must be a whole number of type int32, got 2147483648"),
    ("default", {"default": float("nan")}, FLOAT, ".default: must be a finite number, got nan"),
    ("default", {"default": [1.0]}, FLOAT, ".default: must be a finite number, got [1.0]"),
    ("default", {"default": [1.0]}, PAIR, ".default: must be a finite number, or a list of 2 such values, got [1.0]"),
]


@pytest.mark.parametrize(("kind", "given", "tensor", "fault"), _FORMS)
def test_a_fault_names_key_value_and_what_is_allowed(faults_of, kind, given, tensor, fault):
    default = {TEXT: ""}.get(tensor, 0) if kind != "concat" else ""
    found = faults_of({"x": tensor}, x={"kind": kind, "default": default, **given})
    assert [told.startswith(f"x{fault}") for told in found].count(True) == 1, found


def test_each_fault_of_one_input_is_told(faults_of):
    mapped = {"kind": "bucket", **_AGE, "boundaries": [5, 5], "codes": [0, 1.5], "default": 0.5}
    keys = [fault.partition(": ")[0] for fault in faults_of({"x": INT}, x=mapped)]
    assert keys == ["x.boundaries", "x.codes", "x.codes", "x.default"]


def test_the_last_bucket_fits_the_input(faults_of):
    mapped = {"kind": "hash", "features": ["users:job"], "buckets": 2**31, "first": 1, "default": 0}
    assert faults_of({"x": INT}, x=mapped) == []


@pytest.mark.parametrize(
    ("kind", "content", "fault"),
    [
        ("lookup", None, ": file 't' cannot be read: No such file or directory"),
        ("vocabulary", None, ": file 't' cannot be read: No such file or directory"),
        ("lookup", b"", ": file 't' is not JSON: Expecting value"),
        ("vocabulary", b"", ": file 't' is empty"),
        ("lookup", b"[" * 100_000, ": file 't' is not JSON: maximum recursion depth exceeded"),
        ("lookup", b"[1]", ": file 't' holds a JSON list, allowed is an object"),
        ("lookup", b'{"a": true, "b": 1}', ": file 't' has values that are no number or text: 'a': True"),
        ("lookup", b'{"a": 1, "b": 1, "a": 2}', ": file 't' has the key 'a' 2 times; each may stand once"),
        ("lookup", b'{"a": "b"}', ".file: 't': every value must be a whole number of type int64, got 'a': 'b'"),
        ("vocabulary", b"a\nb\nb\n", ": file 't' has the line 'b' 2 times; each may stand once"),
        ("vocabulary", b"caf\xe9\n", ": file 't' is not UTF-8 from byte 3 on"),
    ],
)
def test_a_table_file_that_cannot_be_used_is_told(faults_of, tmp_path, kind, content, fault):
    if content is not None:
        (tmp_path / "t").write_bytes(content)
    (told,) = faults_of({"x": INT}, x={"kind": kind, **_JOB, "file": "t", "default": 0})
    assert told.startswith(f"x{fault}")


@pytest.mark.parametrize("kind", ["lookup", "vocabulary"])
def test_a_table_file_that_is_no_file_or_outside_the_project_folder_is_told(faults_of, tmp_path, kind):
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path.parent / "outside.json").write_text("{}")
    mapped = {"kind": kind, **_JOB, "default": 0}
    assert [faults_of({"x": INT}, x=mapped | {"file": file}) for file in ("loop", ".", "../outside.json")] == [
        ["x: file 'loop' cannot be read: Too many levels of symbolic links"],
        ["x: file '.' cannot be read: Is a directory"],
        ["x: file '../outside.json' lies outside the project folder; copy it into the folder"],
    ]


@pytest.mark.parametrize(
    "changed",
    [
        {"onnx": "a\0b"},
        {"dump": {"path": "a\0b", "model": "m", "keys": {"u": "int"}}},
        {"inputs": {"x": {"kind": "vocabulary", "feature": "users:job", "file": "a\0b", "default": 0}}},
        {"inputs": {"x": {"kind": "lookup", "feature": "users:job", "file": "a\0b", "default": 0}}},
    ],
)
def test_a_nul_in_the_name_of_a_file_is_a_fault(changed):
    table = {"version": "t1", "tasks": [{"name": "t", "kind": "binary", "output": "t"}], "inputs": {}}
    with pytest.raises(ValidationError, match="must be the name of a file, which has no NUL"):
        TeacherConfig.model_validate(table | changed)
