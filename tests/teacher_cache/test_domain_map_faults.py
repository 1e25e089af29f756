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


@pytest.fixture
def faults_of(tmp_path):
    """The faults of inputs against a signature, without the common beginning `graft.toml: teacher.inputs.`."""

    def find(signature, **inputs):
        features = {feature.name: feature for feature in SPEC.features}
        found = faults_of_inputs(config_of(**inputs), tmp_path, signature, features)
        assert all(fault.startswith("graft.toml: teacher.inputs.") for fault in found)
        return [fault.removeprefix("graft.toml: teacher.inputs.") for fault in found]

    return find


@pytest.mark.parametrize(
    ("mapped", "tensor", "fault"),
    [
        (
            {"kind": "log", "feature": "users:age", "default": 0},
            INT,
            "x.kind: 'log' cannot feed an input of type int64",
        ),
        (
            {"kind": "log", "feature": "users:age", "add": float("inf"), "default": 0},
            FLOAT,
            "x.add: must be finite, got inf",
        ),
        (
            {"kind": "linear", "feature": "users:age", "minimum": 2, "maximum": 1, "default": 0},
            INT,
            "x.minimum: must not be above maximum, 1.0, got 2.0",
        ),
        (
            {"kind": "linear", "feature": "users:age", "maximum": 1.5, "default": 0},
            INT,
            "x.maximum: must be a whole number for an input of type int64, got 1.5",
        ),
        (
            {"kind": "hash", "features": ["users:job", "users:jobb"], "buckets": 2**31, "first": 1, "default": 0},
            TensorSpec(np.dtype(np.int32), 1),
            "x.features.1: the feature spec has no 'users:jobb', did you mean 'users:job'?",
        ),
        (
            {"kind": "hash", "features": ["items:year"], "buckets": 3, "default": 0},
            INT,
            "x.features.0: 'items:year' is of type float, from which 'hash' cannot make int64; allowed is int or str",
        ),
        (
            {"kind": "concat", "features": ["users:job", "users:age"], "default": ""},
            INT,
            "x.kind: 'concat' cannot feed an input of type int64",
        ),
        (
            {"kind": "vocabulary", "feature": "users:job", "file": "none.txt", "default": 0},
            INT,
            "x: file 'none.txt' cannot be read: No such file or directory",
        ),
        (
            {"kind": "vocabulary", "feature": "users:job", "file": "../v.txt", "default": 0},
            INT,
            "x: file '../v.txt' lies outside the project folder; copy it into the folder",
        ),
        (
            {"kind": "vocabulary", "feature": "users:job", "file": "twice.txt", "default": 0},
            INT,
            "x: file 'twice.txt' has the line 'b' 2 times; each may stand once",
        ),
        (
            {"kind": "vocabulary", "feature": "users:job", "file": "latin.txt", "default": 0},
            INT,
            "x: file 'latin.txt' is not UTF-8 from byte 3 on",
        ),
    ],
)
def test_what_a_kind_cannot_do_is_a_fault(faults_of, tmp_path, mapped, tensor, fault):
    (tmp_path / "twice.txt").write_text("a\nb\nb\n")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9\n")
    assert any(found.startswith(fault) for found in faults_of({"x": tensor}, x=mapped))


def test_the_last_bucket_fits_the_input(faults_of):
    mapped = {"kind": "hash", "features": ["users:job"], "buckets": 2**31, "first": 1, "default": 0}
    assert faults_of({"x": INT}, x=mapped) == []
    int32 = TensorSpec(np.dtype(np.int32), 1)
    assert faults_of({"x": int32}, x=mapped) == [
        "x.buckets: the last code, 2147483648, must be a whole number of type int32"
    ]


def test_the_map_is_refused_with_all_its_faults(tmp_path):
    with pytest.raises(ConfigurationError) as error:
        DomainMap(config_of(), tmp_path, Signature({"a": INT, "b": TEXT}), SPEC)
    assert len(error.value.faults) == 2


def test_a_clean_map_has_no_faults(config, tmp_path, teacher, spec):
    features = {feature.name: feature for feature in spec.features}
    assert faults_of_inputs(config, tmp_path, teacher.inputs, features) == []


def test_unmapped_and_unknown_inputs_are_told_at_once(faults_of):
    mapped = {"kind": "default", "default": 1}
    assert faults_of({"user_age": INT, "text": TEXT}, usr_age=mapped, zzz=mapped) == [
        "usr_age: the teacher has no such input, did you mean 'user_age'?",
        "zzz: the teacher has no such input, it has text, user_age",
        (
            "user_age: the teacher's input of type int64 is not mapped; give it a feature, "
            'or kind = "default" and a default'
        ),
        'text: the teacher\'s input of type string is not mapped; give it a feature, or kind = "default" and a default',
    ]


def test_a_feature_that_the_spec_lacks_is_told_with_what_there_is(faults_of):
    found = faults_of(
        {"x": INT, "y": INT},
        x={"kind": "feature", "feature": "users:agee", "default": 0},
        y={"kind": "feature", "feature": "?", "default": 0},
    )
    assert found == [
        "x.feature: the feature spec has no 'users:agee', did you mean 'users:age'?",
        "y.feature: the feature spec has no '?', it has items:vector, items:year, users:age, users:job",
    ]


@pytest.mark.parametrize(
    ("mapped", "tensor", "fault"),
    [
        (
            {"kind": "bucket", "feature": "users:job", "boundaries": [1], "codes": [0, 1], "default": 0},
            INT,
            ".feature: 'users:job' is of type str, from which 'bucket' cannot make int64; allowed is int or float",
        ),
        (
            {"kind": "linear", "feature": "items:year", "default": 0},
            INT,
            ".feature: 'items:year' is of type float, from which 'linear' cannot make int64; allowed is int",
        ),
        (
            {"kind": "feature", "feature": "users:age", "default": ""},
            TEXT,
            ".feature: 'users:age' is of type int, from which 'feature' cannot make string; allowed is str",
        ),
        (
            {"kind": "lookup", "feature": "items:year", "table": {}, "default": 0},
            INT,
            ".feature: 'items:year' is of type float, from which 'lookup' cannot make int64; allowed is int or str",
        ),
        (
            {"kind": "linear", "feature": "items:vector", "default": 0},
            TensorSpec(np.dtype(np.float32), 2),
            ".kind: 'linear' cannot feed an input of type float32[2], allowed are default, feature",
        ),
        (
            {"kind": "feature", "feature": "items:vector", "default": 0.0},
            TensorSpec(np.dtype(np.float32), 3),
            ".feature: 'items:vector' has 2 elements, the teacher's input takes 3",
        ),
        (
            {"kind": "linear", "feature": "users:age", "multiply": 0.5, "add": float("inf"), "default": 0},
            INT,
            ".multiply: must be a whole number for an input of type int64, got 0.5; .add: must be finite, got inf",
        ),
        (
            {"kind": "bucket", "feature": "users:age", "boundaries": [5, 5], "codes": [0, 1.5], "default": 0},
            INT,
            (
                ".boundaries: must be finite and rise strictly, got [5.0, 5.0]; "
                ".codes: 2 boundaries need 3 codes, got 2; "
                ".codes: every code must be a whole number of type int64, got 1.5"
            ),
        ),
        (
            {"kind": "lookup", "feature": "users:job", "table": {"a": 1, "b": "c"}, "file": "t.json", "default": 0},
            INT,
            ": needs a table or a file, got both; allowed is one of the two",
        ),
        (
            {"kind": "lookup", "feature": "users:job", "default": 0},
            INT,
            ": needs a table or a file, got neither; allowed is one of the two",
        ),
        (
            {"kind": "lookup", "feature": "users:job", "table": {"a": 1, "b": "c"}, "default": "d"},
            INT,
            (
                ".table: every value must be a whole number of type int64, got 'b': 'c'; "
                ".default: must be a whole number of type int64, got 'd'"
            ),
        ),
        ({"kind": "default", "default": 3}, TEXT, ".default: must be a text, got 3"),
        ({"kind": "default", "default": 0.5}, INT, ".default: must be a whole number of type int64, got 0.5"),
        (
            {"kind": "default", "default": 2**31},
            TensorSpec(np.dtype(np.int32), 1),
            ".default: must be a whole number of type int32, got 2147483648",
        ),
        ({"kind": "default", "default": float("nan")}, FLOAT, ".default: must be a finite number, got nan"),
        ({"kind": "default", "default": [1.0]}, FLOAT, ".default: must be a finite number, got [1.0]"),
        (
            {"kind": "default", "default": [1.0]},
            TensorSpec(np.dtype(np.float32), 2),
            ".default: must be a finite number, or a list of 2 such values, got [1.0]",
        ),
    ],
)
def test_a_fault_names_key_value_and_what_is_allowed(faults_of, mapped, tensor, fault):
    assert "; ".join(text.removeprefix("x") for text in faults_of({"x": tensor}, x=mapped)) == fault


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (None, "x: file 't.json' cannot be read: No such file or directory"),
        (
            "{",
            "x: file 't.json' is not JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)",
        ),
        ("[1]", "x: file 't.json' holds a JSON list, allowed is an object"),
        ('{"a": true, "b": 1}', "x: file 't.json' has values that are no number or text: 'a': True"),
        (
            '{"a": 1, "b": 1, "a": 2}',
            "x: file 't.json' has the key 'a' 2 times; each may stand once",
        ),
        ("[" * 100_000, "x: file 't.json' is not JSON: maximum recursion depth exceeded"),
        ('{"a": "b"}', "x.file: 't.json': every value must be a whole number of type int64, got 'a': 'b'"),
    ],
)
def test_a_table_file_that_cannot_be_used_is_told(faults_of, tmp_path, content, fault):
    if content is not None:
        (tmp_path / "t.json").write_text(content)
    mapped = {"kind": "lookup", "feature": "users:job", "file": "t.json", "default": 0}
    (told,) = faults_of({"x": INT}, x=mapped)
    assert told.removesuffix(" while decoding a JSON array from a unicode string") == fault


@pytest.mark.parametrize("kind", ["lookup", "vocabulary"])
def test_a_table_file_that_is_no_file_is_told(faults_of, tmp_path, kind):
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "empty").touch()
    mapped = {"kind": kind, "feature": "users:job", "default": 0}
    told = [faults_of({"x": INT}, x=mapped | {"file": file}) for file in ("loop", ".", "empty")]
    assert told[:2] == [
        ["x: file 'loop' cannot be read: Too many levels of symbolic links"],
        ["x: file '.' cannot be read: Is a directory"],
    ]
    assert told[2][0].startswith("x: file 'empty' is ")


def test_a_table_file_outside_the_project_folder_is_refused(faults_of, tmp_path):
    (tmp_path.parent / "outside.json").write_text("{}")
    mapped = {"kind": "lookup", "feature": "users:job", "file": "../outside.json", "default": 0}
    assert faults_of({"x": INT}, x=mapped) == [
        "x: file '../outside.json' lies outside the project folder; copy it into the folder"
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
