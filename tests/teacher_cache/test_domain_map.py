import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from teacher_cache.domain.domain_map import DomainMap
from teacher_cache.teacher import TensorSpec
from tests.teacher_cache.domain_maps import FLOAT, INT, SPEC, TEXT, Signature, config_of


@pytest.fixture
def map_one(tmp_path):
    """Maps one column by one input named x: the tensor as a list, its dtype's name, and who fell back."""

    def map_column(mapped, tensor, *columns):
        domain_map = DomainMap(config_of(x=mapped), tmp_path, Signature({"x": tensor}), SPEC)
        features = mapped.get("features", [mapped.get("feature")])
        rows = domain_map.map_rows(dict(zip(features, columns, strict=True)))
        return rows.inputs["x"].tolist(), rows.inputs["x"].dtype.name, rows.fallback_shares.tolist()

    return map_column


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
    config = config_of(a={"kind": "default", "default": 0.5}, b={"kind": "default", "default": [1.0, 2.0]})
    domain_map = DomainMap(config, tmp_path, Signature({"a": wide, "b": wide}), SPEC)
    inputs = domain_map.map_rows({"users:age": [1, 2]}).inputs
    assert inputs["a"].tolist() == [[0.5, 0.5], [0.5, 0.5]]
    assert inputs["b"].tolist() == [[1.0, 2.0], [1.0, 2.0]]
    assert domain_map.defaulted_share == 1.0


@settings(deadline=None)  # the machine may be busy
@given(rows=st.lists(st.tuples(st.none() | st.integers(0, 99), st.none() | st.floats(-1e9, 1e9)), min_size=1))
def test_a_row_is_mapped_alike_alone_and_in_any_batch(rows):
    signature = {"a": INT, "b": FLOAT}
    config = config_of(
        a={"kind": "bucket", "feature": "users:age", "boundaries": [18, 25], "codes": [1, 2, 3], "default": 9},
        b={"kind": "linear", "feature": "items:year", "multiply": 3.0, "default": 1.5},
    )
    domain_map = DomainMap(config, Path(), Signature(signature), SPEC)
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
    config = config_of(
        exact={"kind": "feature", **feature},
        small={"kind": "feature", **feature},
        text={"kind": "feature", **job},
        number={"kind": "feature", "feature": "items:year", "default": 0.5},
        wide={"kind": "feature", "feature": "items:vector", "default": 0.0},
        table={"kind": "lookup", "feature": "users:job", "table": {"20": 1, "None": 2, "": 3}, "default": 9},
    )
    domain_map = DomainMap(config, Path(), Signature(signature), SPEC)
    pure, mixed = (
        domain_map.map_rows({feature.name: values for feature in SPEC.features})
        for values in (column, [*column, None, 1, "x", 0.5, [1.0, 2.0]])
    )
    for name in signature:
        assert pure.inputs[name].dtype == mixed.inputs[name].dtype
        assert repr(pure.inputs[name].tolist()) == repr(mixed.inputs[name][: len(column)].tolist())
        assert pure.fell_back[name].tolist() == mixed.fell_back[name][: len(column)].tolist()
