import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from features.spec import Feature
from runtime.errors import ConfigurationError
from teacher_cache.config import TeacherConfig
from teacher_cache.domain_map import DomainMap, faults
from teacher_cache.teacher import TensorSpec
from tests.specs import spec_of

FLOAT = TensorSpec(np.dtype(np.float32), 1)
INT = TensorSpec(np.dtype(np.int64), 1)
TEXT = TensorSpec(np.dtype(object), 1)
FEATURES = (
    Feature(name="users:age", source="user", role="dense", dtype="int", default=0),
    Feature(name="users:job", source="user", role="categorical", dtype="str", default=""),
    Feature(name="items:vector", source="item", role="embedding", dtype="float_list", default=[0.0, 0.0]),
    Feature(name="items:year", source="item", role="dense", dtype="float", default=0.0),
)

SPEC = spec_of(*FEATURES)


class _Signature:
    """A teacher of which only the inputs matter."""

    def __init__(self, inputs):
        self.inputs = inputs

    def score(self, inputs):
        raise NotImplementedError


def _config(**inputs):
    task = {"name": "like", "kind": "binary", "output": "y"}
    return TeacherConfig.model_validate({"version": "t1", "onnx": "t.onnx", "tasks": [task], "inputs": inputs})


@pytest.fixture
def map_one(tmp_path):
    """Maps one column by one input named x: the tensor as a list, its dtype's name, and who fell back."""

    def map_column(mapped, tensor, *columns):
        domain_map = DomainMap(_config(x=mapped), tmp_path, _Signature({"x": tensor}), SPEC)
        features = mapped.get("features", [mapped.get("feature")])
        rows = domain_map.map_rows(dict(zip(features, columns, strict=True)))
        return rows.inputs["x"].tolist(), rows.inputs["x"].dtype.name, rows.fallback_shares.tolist()

    return map_column


@pytest.fixture
def faults_of(tmp_path):
    """The faults of inputs against a signature, without the common beginning `graft.toml: teacher.inputs.`."""

    def find(signature, **inputs):
        found = faults(_config(**inputs), tmp_path, _Signature(signature), SPEC)
        assert all(fault.startswith("graft.toml: teacher.inputs.") for fault in found)
        return [fault.removeprefix("graft.toml: teacher.inputs.") for fault in found]

    return find


def test_every_kind_gives_the_value_computed_by_hand(domain_map, request_of, spec):
    requests = [request_of(1), request_of(2, features=[17, "", [1.0, 2.0, 4.0], 10.0, 2])]
    inputs = domain_map.map_rows(spec.columns_of([r.features for r in requests])).inputs
    assert inputs["age_code"].tolist() == [18, 1]
    assert inputs["taste"].tolist() == [[1.0, 0.0, 0.0], [1.0, 2.0, 4.0]]
    assert inputs["year"].tolist() == [9.0, 19.0]
    assert inputs["source_user"].tolist() == [2, 2]
    assert {name: value.dtype.name for name, value in inputs.items()} == {
        "age_code": "int64",
        "taste": "float32",
        "year": "float32",
        "source_user": "int64",
    }


def test_missing_values_fall_back_to_the_inputs_defaults_and_are_counted(domain_map, spec):
    rows = domain_map.map_rows(spec.columns_of([[None, None, None, None, None], [18, "x", [0.0] * 3, None, 3]]))
    assert rows.inputs["age_code"].tolist() == [7, 18]
    assert rows.inputs["taste"].tolist() == [[0.0] * 3, [0.0] * 3]
    assert rows.inputs["year"].tolist() == [8.0, 8.0]
    assert rows.fallback_shares.tolist() == [1.0, 1 / 3]


def test_the_share_of_inputs_without_counterpart_is_a_quarter(domain_map):
    assert domain_map.defaulted_share == 0.25


def test_no_rows_give_empty_tensors(domain_map, spec):
    inputs = domain_map.map_rows({feature.name: [] for feature in spec.features}).inputs
    assert {name: value.shape for name, value in inputs.items()} == {
        "age_code": (0,),
        "taste": (0, 3),
        "year": (0,),
        "source_user": (0,),
    }


def test_a_bucket_holds_its_lower_boundary(map_one):
    mapped = {"kind": "bucket", "feature": "users:age", "boundaries": [18, 25], "codes": [1, 18, 25], "default": 0}
    assert map_one(mapped, INT, [17, 18, 24, 25, None]) == ([1, 18, 18, 25, 0], "int64", [0, 0, 0, 0, 1])


def test_an_integer_feature_stays_whole(map_one):
    mapped = {"kind": "feature", "feature": "users:age", "default": -1}
    assert map_one(mapped, INT, [2**63 - 1, None]) == ([2**63 - 1, -1], "int64", [0, 1])


def test_values_beyond_the_tensors_type_fall_back(map_one):
    int32 = TensorSpec(np.dtype(np.int32), 1)
    mapped = {"kind": "feature", "feature": "users:age", "default": -1}
    assert map_one(mapped, int32, [2**31 - 1, 2**31]) == ([2**31 - 1, -1], "int32", [0, 1])
    assert map_one(mapped | {"feature": "items:year"}, FLOAT, [1e39, 2.5]) == ([-1.0, 2.5], "float32", [1, 0])


def test_a_line_feeds_integers_and_floats(map_one):
    mapped = {"kind": "linear", "feature": "users:age", "multiply": -2, "add": 100, "default": 5}
    assert map_one(mapped, INT, [30, None]) == ([40, 5], "int64", [0, 1])
    assert map_one(mapped | {"multiply": 0.5}, FLOAT, [30, None]) == ([115.0, 5.0], "float32", [0, 1])


def test_a_line_ends_at_its_bounds(map_one):
    mapped = {"kind": "linear", "feature": "users:age", "minimum": 18, "maximum": 99, "default": 5}
    assert map_one(mapped, INT, [-3, 18, 50, 2**40, None]) == ([18, 18, 50, 99, 5], "int64", [0, 0, 0, 0, 1])
    only_above = {"kind": "linear", "feature": "items:year", "maximum": 2.5, "default": 0}
    assert map_one(only_above, FLOAT, [-1e30, 3.0]) == ([np.float32(-1e30), 2.5], "float32", [0, 0])


def test_what_a_computation_takes_beyond_float64_falls_back_without_a_warning(map_one):
    steep = {"kind": "linear", "feature": "items:year", "multiply": 1e300, "default": 5}
    assert map_one(steep, FLOAT, [1e30, -1e30, 1e-299]) == ([5.0, 5.0, 10.0], "float32", [1, 1, 0])
    assert map_one(steep | {"maximum": 9.0}, FLOAT, [1e30, -1e30]) == ([9.0, 5.0], "float32", [0, 1])
    far = {"kind": "log", "feature": "items:year", "add": 1.5e308, "default": 5}
    assert map_one(far, FLOAT, [1.5e308]) == ([5.0], "float32", [1])


def test_a_logarithm_is_of_one_more_and_falls_back_where_there_is_none(map_one):
    mapped = {"kind": "log", "feature": "users:age", "default": -9}
    values, dtype, fell_back = map_one(mapped, FLOAT, [0, 7, -1, -5, None])
    assert (values, dtype) == (pytest.approx([0.0, np.log(8), -9, -9, -9]), "float32")
    assert fell_back == [0, 0, 1, 1, 1]
    assert map_one(mapped | {"add": 0.0}, FLOAT, [1, 0])[0] == [0.0, -9.0]


def test_a_vocabulary_gives_the_number_of_the_line(map_one, tmp_path):
    (tmp_path / "jobs.txt").write_bytes("\ufeffnurse\r\npilot, retired\r\n\r\n20\r\n".encode())
    mapped = {"kind": "vocabulary", "feature": "users:job", "file": "jobs.txt", "first": 2, "default": 1}
    column = ["pilot, retired", "nurse", "", "20", "Nurse", None]
    assert map_one(mapped, INT, column) == ([3, 2, 4, 5, 1, 1], "int64", [0, 0, 0, 0, 1, 1])
    assert map_one(mapped | {"feature": "users:age"}, INT, [20]) == ([5], "int64", [0])


def test_texts_are_joined_and_hashed_as_murmur_hash_has_it(map_one):
    """Digests of the reference implementation: https://github.com/aappleby/smhasher, MurmurHash3_x86_32."""
    joined = {"kind": "concat", "features": ["users:job", "users:age"], "separator": "/", "default": "none"}
    columns = ["hello", "a", None, "b"], [1, -2, 3, None]
    assert map_one(joined, TEXT, *columns) == (["hello/1", "a/-2", "none", "none"], "object", [0, 0, 1, 1])
    hashed = {"kind": "hash", "features": ["users:job"], "buckets": 2**31, "default": -1}
    column = ["hello", "", None]
    assert map_one(hashed, INT, column) == ([0x248BFA47, 0, -1], "int64", [0, 0, 1])
    assert map_one(hashed | {"seed": 1, "buckets": 1000, "first": 7}, INT, ["hello"])[0] == [7 + 0xBB4ABCAD % 1000]
    assert map_one(hashed | {"features": joined["features"]}, INT, ["hel"], [10]) == map_one(hashed, INT, ["hel_10"])


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


def test_a_text_feature_feeds_a_text_input(map_one):
    mapped = {"kind": "feature", "feature": "users:job", "default": "other"}
    assert map_one(mapped, TEXT, ["nurse", None]) == (["nurse", "other"], "object", [0, 1])


def test_a_list_of_another_width_falls_back(map_one):
    wide = TensorSpec(np.dtype(np.float32), 2)
    mapped = {"kind": "feature", "feature": "items:vector", "default": [3.0, 4.0]}
    assert map_one(mapped, wide, [[1.0, 2.0], [1.0], None]) == ([[1, 2], [3, 4], [3, 4]], "float32", [0, 1, 1])


def test_an_inline_table_maps_words_and_an_unknown_word_falls_back(map_one):
    mapped = {"kind": "lookup", "feature": "users:job", "table": {"nurse": 6, "writer": 20}, "default": 0}
    assert map_one(mapped, INT, ["writer", "nurse", "pilot", None]) == ([20, 6, 0, 0], "int64", [0, 0, 1, 1])


def test_a_table_in_a_file_maps_integers_by_their_digits(map_one, tmp_path):
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables/ages.json").write_text(json.dumps({"20": "young", "-1": "unborn"}))
    mapped = {"kind": "lookup", "feature": "users:age", "file": "tables/ages.json", "default": "?"}
    assert map_one(mapped, TEXT, [20, -1, 21]) == (["young", "unborn", "?"], "object", [0, 0, 1])


def test_a_wide_default_is_one_value_or_a_list(tmp_path):
    wide = TensorSpec(np.dtype(np.float32), 2)
    config = _config(a={"kind": "default", "default": 0.5}, b={"kind": "default", "default": [1.0, 2.0]})
    domain_map = DomainMap(config, tmp_path, _Signature({"a": wide, "b": wide}), SPEC)
    inputs = domain_map.map_rows({"users:age": [1, 2]}).inputs
    assert inputs["a"].tolist() == [[0.5, 0.5], [0.5, 0.5]]
    assert inputs["b"].tolist() == [[1.0, 2.0], [1.0, 2.0]]
    assert domain_map.defaulted_share == 1.0


@settings(deadline=None)  # the machine may be busy
@given(rows=st.lists(st.tuples(st.none() | st.integers(0, 99), st.none() | st.floats(-1e9, 1e9)), min_size=1))
def test_a_row_is_mapped_alike_alone_and_in_any_batch(rows):
    signature = {"a": INT, "b": FLOAT}
    config = _config(
        a={"kind": "bucket", "feature": "users:age", "boundaries": [18, 25], "codes": [1, 2, 3], "default": 9},
        b={"kind": "linear", "feature": "items:year", "multiply": 3.0, "default": 1.5},
    )
    domain_map = DomainMap(config, Path(), _Signature(signature), SPEC)
    together = domain_map.map_rows({"users:age": [a for a, _ in rows], "items:year": [b for _, b in rows]}).inputs
    alone = [domain_map.map_rows({"users:age": [a], "items:year": [b]}).inputs for a, b in rows]
    for name in signature:
        assert together[name].tobytes() == b"".join(one[name].tobytes() for one in alone)


_VALUES = (
    st.none()
    | st.sampled_from(
        [True, False, "20", "", "None", "1.5", 2**31, -(2**31) - 1, 2**63, -(2**63) - 1, 2**80, -0.0, 1e300]
    )
    | st.integers()
    | st.floats()
    | st.lists(st.floats(width=32), max_size=3)
)


@settings(deadline=None)  # the machine may be busy
@given(column=st.lists(_VALUES, max_size=5) | st.lists(st.integers()) | st.lists(st.text(max_size=2)))
def test_a_value_is_mapped_alike_whatever_types_stand_beside_it(column):
    feature = {"feature": "users:age", "default": 7}
    job = {"feature": "users:job", "default": "?"}
    signature = {
        "exact": INT,
        "small": TensorSpec(np.dtype(np.int32), 1),
        "text": TEXT,
        "number": FLOAT,
        "wide": TensorSpec(np.dtype(np.float32), 2),
        "table": INT,
    }
    config = _config(
        exact={"kind": "feature", **feature},
        small={"kind": "feature", **feature},
        text={"kind": "feature", **job},
        number={"kind": "feature", "feature": "items:year", "default": 0.5},
        wide={"kind": "feature", "feature": "items:vector", "default": 0.0},
        table={"kind": "lookup", "feature": "users:job", "table": {"20": 1, "None": 2, "": 3}, "default": 9},
    )
    domain_map = DomainMap(config, Path(), _Signature(signature), SPEC)
    pure, mixed = (
        domain_map.map_rows({feature.name: values for feature in SPEC.features})
        for values in (column, [*column, None, 1, "x", 0.5, [1.0, 2.0]])
    )
    for name in signature:
        assert pure.inputs[name].dtype == mixed.inputs[name].dtype
        assert repr(pure.inputs[name].tolist()) == repr(mixed.inputs[name][: len(column)].tolist())
        assert pure.fell_back[name].tolist() == mixed.fell_back[name][: len(column)].tolist()


def test_the_map_is_refused_with_all_its_faults(tmp_path):
    with pytest.raises(ConfigurationError) as error:
        DomainMap(_config(), tmp_path, _Signature({"a": INT, "b": TEXT}), SPEC)
    assert len(error.value.faults) == 2


def test_a_clean_map_has_no_faults(config, tmp_path, teacher, spec):
    assert faults(config, tmp_path, teacher, spec) == []


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
        {"torch_export": "a\0b"},
        {"dump": {"path": "a\0b", "model": "m", "keys": {"u": "int"}}},
        {"inputs": {"x": {"kind": "vocabulary", "feature": "users:job", "file": "a\0b", "default": 0}}},
        {"inputs": {"x": {"kind": "lookup", "feature": "users:job", "file": "a\0b", "default": 0}}},
    ],
)
def test_a_nul_in_the_name_of_a_file_is_a_fault(changed):
    table = {"version": "t1", "tasks": [{"name": "t", "kind": "binary", "output": "t"}], "inputs": {}}
    with pytest.raises(ValidationError, match="must be the name of a file, which has no NUL"):
        TeacherConfig.model_validate(table | changed)
