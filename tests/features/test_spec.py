"""One spec encodes what was read and what was logged to the very same bits."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from features.spec import MISSING_HASH, Feature, FeatureSpec, hash_category
from stream.events import Example

_DEFAULTS: dict[str, Any] = {"int": 7, "float": 0.25, "str": "none", "float_list": [1.0, 2.0, 3.0]}


def feature(role: Any, dtype: Any, default: Any = None) -> Feature:
    name = f"context:{role}_{dtype}" if dtype != "float_list" else "users:taste"
    return Feature(name=name, source="context", role=role, dtype=dtype, default=default)


SPEC = FeatureSpec(
    feast_project="p",
    user_join_key="u",
    item_join_key="i",
    user_id_type="int",
    item_id_type="str",
    entity_key_serialization_version=3,
    features=(
        feature("dense", "int", 7),
        feature("dense", "float", 0.25),
        feature("embedding", "float_list", [1.0, 2.0, 3.0]),
        feature("categorical", "int"),
        feature("categorical", "float", 0.25),
        feature("categorical", "str", "none"),
        feature("passthrough", "str"),
        feature("passthrough", "float"),
    ),
)
_VALUES: dict[str, st.SearchStrategy[Any]] = {
    "int": st.integers(-(2**63), 2**63 - 1),
    "float": st.floats(allow_nan=False, allow_infinity=False),
    "str": st.text(st.characters(exclude_categories=["Cs"])),
    "float_list": st.lists(st.floats(allow_nan=False, allow_infinity=False, width=32), min_size=3, max_size=3),
}
_ROWS = st.lists(st.tuples(*(st.one_of(st.none(), _VALUES[f.dtype]) for f in SPEC.features)), max_size=8)


@given(_ROWS)
def test_logged_rows_encode_to_the_very_bits_of_what_was_read(rows):
    columns = {f.name: [row[i] for row in rows] for i, f in enumerate(SPEC.features)}
    logged = [Example.model_validate_json(_example(row).model_dump_json()).features for row in SPEC.rows_of(columns)]

    read, replayed = SPEC.encode(columns), SPEC.encode(SPEC.columns_of(logged))

    assert replayed.dense_BD.tobytes() == read.dense_BD.tobytes()
    assert replayed.categorical_BC.tobytes() == read.categorical_BC.tobytes()
    assert np.isfinite(read.dense_BD).all()
    assert read.dense_BD.shape == (len(rows), 5)


@given(st.tuples(*(st.one_of(st.none(), _VALUES[f.dtype]) for f in SPEC.features)), st.integers(1, 5))
def test_a_value_that_all_rows_share_encodes_to_the_bits_of_its_repetition(row, size):
    shared = {f.name: [value] for f, value in zip(SPEC.features, row, strict=True)}
    repeated = {name: values * size for name, values in shared.items()}

    spread, whole = SPEC.encode(shared, size), SPEC.encode(repeated)

    assert spread.dense_BD.tobytes() == whole.dense_BD.tobytes()
    assert spread.categorical_BC.tobytes() == whole.categorical_BC.tobytes()


@given(st.tuples(*(st.one_of(st.none(), _VALUES[f.dtype]) for f in SPEC.features)))
@example((2**63 - 1, 1e300, [3.4028235e38, -0.0, 0.0], None, -0.0, "", None, None))
@example((-(2**24) - 1, 3.4028235677973366e38, [0.0] * 3, -1, 5e-324, "\ud800", None, None))
def test_a_request_encodes_to_the_bits_of_a_row_of_its_values(row):
    values = {f.name: value for f, value in zip(SPEC.features, row, strict=True)}

    request, one_row = SPEC.encode_request(values), SPEC.encode({name: [value] for name, value in values.items()})

    assert request.dense_BD.dtype == one_row.dense_BD.dtype
    assert request.dense_BD.tobytes() == one_row.dense_BD.tobytes()
    assert request.categorical_BC.dtype == one_row.categorical_BC.dtype
    assert request.categorical_BC.tobytes() == one_row.categorical_BC.tobytes()


def test_a_missing_value_becomes_its_default_and_a_missing_category_the_reserved_hash():
    batch = SPEC.encode({f.name: [None] for f in SPEC.features})

    assert batch.dense_BD.tolist() == [[7.0, 0.25, 1.0, 2.0, 3.0]]
    names = [f.name for f in SPEC.categorical]
    assert batch.categorical_BC.tolist() == [
        [MISSING_HASH, hash_category(names[1], 0.25), hash_category(names[2], "none")]
    ]


def test_passthrough_features_are_in_the_rows_and_not_in_the_batch():
    assert "context:passthrough_str" not in SPEC.dense_names
    assert [f.role for f in SPEC.dense + SPEC.categorical].count("passthrough") == 0
    assert sum(f.width for f in SPEC.features) == len(SPEC.dense_names) == 5


def test_a_number_beyond_float32_is_clipped():
    columns: dict[str, list[Any]] = {f.name: [None] * 2 for f in SPEC.features}
    columns["context:dense_float"] = [1e300, -1e300]

    assert SPEC.encode(columns).dense_BD[:, 1].tolist() == pytest.approx([3.4028235e38, -3.4028235e38])


@pytest.mark.parametrize(("one", "other"), [(1, "1"), (0.0, -0.0), (-5, "-5")])
def test_values_of_the_same_meaning_hash_alike(one, other):
    assert hash_category("f", one) == hash_category("f", other)


def test_a_hash_does_not_depend_on_what_was_hashed_before():
    hash_category.cache_clear()
    first = [hash_category("f", 1), hash_category("f", 1.0), hash_category("f", -0.0)]
    hash_category.cache_clear()
    again = [hash_category("f", -0.0), hash_category("f", 1.0), hash_category("f", 1)]

    assert again == first[::-1]


def test_hashes_are_those_of_every_other_process():
    assert hash_category("user_id", 42) == hash_category("user_id", "42") == 394809325852428877
    assert hash_category("f", "\ud800") != MISSING_HASH, "text that is no UTF-8 does not end the process"


def test_specs_that_differ_have_different_ids():
    other = FeatureSpec.model_validate({**SPEC.model_dump(), "features": SPEC.features[::-1]})

    assert other.spec_id != SPEC.spec_id
    assert FeatureSpec.model_validate_json(SPEC.model_dump_json()).spec_id == SPEC.spec_id


def test_a_row_of_another_spec_is_refused():
    with pytest.raises(ValueError, match="has 8 features, got 2"):
        SPEC.columns_of([[1, 2]])


def _example(row: list[Any]) -> Example:
    assert all(not isinstance(v, float) or math.isfinite(v) for v in row)
    return Example(
        impression_id="i",
        user_id=1,
        item_id="i",
        event_time_ms=0,
        context={},
        spec_id=SPEC.spec_id,
        features=row,
        labels={"like": 1.0},
    )
