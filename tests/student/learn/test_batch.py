"""Which examples are encoded, and which have a fault: the quick look at whole columns decides as that at each value."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.errors import InvalidInputError
from stream.events import Example
from student.learn.batch import encode, encoded, fault_of
from tests.student.conftest import Toy

TOY = Toy()
SETUP = TOY.setup()
NAN, INFINITE = float("nan"), float("inf")
NUMBERS = st.sampled_from([None, 0, -3, 1.5, 1e39, NAN, INFINITE, 10**400, True, "7", [1.0]])
LISTS = st.sampled_from([None, [0.5, -1], [1, True], [0.5], [0.5, NAN], [1e39, 0.0], [-INFINITE, 0], [0, "1"], 3.0])
IDS = st.sampled_from([None, 5, "i5", 1.0, [2.0]])


def example(number: int, **fields: Any) -> Example:
    """An example whose fields nobody has checked, as of another release."""
    return TOY.example(number).model_copy(update=fields)


ROWS = st.builds(lambda *features: example(1, features=list(features)), NUMBERS, IDS, LISTS, IDS, NUMBERS)
OTHERS = st.sampled_from(
    [
        example(2),
        example(3),
        example(4, spec_id="0" * 16),
        example(5, labels={"like": 1.0}),
        example(6, features=[1, 2]),
        example(7, labels=example(7).labels | {"more": 1.0}),
    ]
)


@given(st.lists(ROWS | OTHERS, max_size=4))
def test_examples_are_encoded_or_have_the_fault_that_they_have_alone(examples: list[Example]) -> None:
    found = encode(SETUP, examples)
    assert found.faults == [fault_of(SETUP, one) for one in examples]
    sound = [one for one, fault in zip(examples, found.faults, strict=True) if fault is None]
    alone = [encode(SETUP, [one]) for one in sound]
    assert np.isfinite(found.features.dense_BD).all()
    assert found.features.dense_BD.tolist() == [row for one in alone for row in one.features.dense_BD.tolist()]
    for column in ("label_BK", "user_B", "item_B"):
        np.testing.assert_array_equal(
            getattr(found, column), [row for one in alone for row in getattr(one, column)] or getattr(found, column)
        )


def test_an_example_with_a_fault_is_an_error_for_who_wants_all() -> None:
    with pytest.raises(InvalidInputError, match="example m2: spec_id must be"):
        encoded(SETUP, [example(1), example(2, spec_id="0" * 16)], np.zeros((2, 3), np.float32))
