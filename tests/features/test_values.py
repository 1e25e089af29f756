"""Stored bytes that Feast did not write are misses; none of them ends a read."""

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from features.online.redis_layout import DTYPES, UNUSABLE_VALUES, decode_column, decode_value
from features.spec import Feature, Value


def feature(value_type: str) -> Feature:
    dtype = DTYPES[value_type]
    role = {"str": "categorical", "float_list": "embedding"}.get(dtype, "dense")
    default = {"str": "", "float_list": [0.0, 0.0]}.get(dtype, 0)
    return Feature(
        name=value_type, source="item", role=role, dtype=dtype, default=default,
        view="v", feature="f", value_type=value_type,
    )  # fmt: skip


def fits(value: Value, dtype: str) -> bool:
    if value is None:
        return True
    if isinstance(value, list):
        return dtype == "float_list" and len(value) == 2 and all(map(math.isfinite, value))
    kinds = {"int": int, "float": float, "str": str}
    return isinstance(value, kinds[dtype]) and (isinstance(value, str) or math.isfinite(value))


@given(value_type=st.sampled_from(sorted(DTYPES)), raws=st.lists(st.binary(max_size=24), min_size=1, max_size=8))
@example(value_type="STRING", raws=[b"\x12"])
@example(value_type="STRING", raws=[b"\x12\x02\xff\xfe"] * 5)
@example(value_type="INT64", raws=[b"\x20" + b"\xff" * 20 + b"\x01"])
@example(value_type="FLOAT_LIST", raws=[b"\x82\x01\x05\x0a\x03abc"] * 5)
@example(value_type="FLOAT", raws=[b"\x35\x00"] * 5)
def test_any_bytes_are_a_fitting_value_or_a_miss(value_type: str, raws: list[bytes]) -> None:
    values = decode_column(feature(value_type), raws)
    assert len(values) == len(raws)
    assert all(fits(value, DTYPES[value_type]) for value in values)
    alone = [decode_value(feature(value_type), raw) if raw else None for raw in raws]
    assert repr(alone) == repr(values)  # also by their types


@pytest.mark.parametrize("count", [1, 6])
def test_a_damaged_value_is_counted_and_its_neighbours_are_read(count: int) -> None:
    before = UNUSABLE_VALUES.labels("STRING")._value.get()
    assert decode_column(feature("STRING"), [b"\x12\x05drama"] * count + [b"\x12"]) == ["drama"] * count + [None]
    assert UNUSABLE_VALUES.labels("STRING")._value.get() == before + 1
