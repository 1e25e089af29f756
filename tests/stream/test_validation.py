"""What is refused, and what the reason says."""

import json

import pytest

from runtime.errors import InvalidInputError
from stream.validation import Validator
from tests.stream.pair import SPEC, TASKS, feedback, impression

VALIDATOR = Validator(SPEC, TASKS)


def test_a_valid_impression_and_valid_feedback_are_parsed():
    assert VALIDATOR.impression(json.dumps(impression(3, 5)).encode()).context == {"hour": 3}
    assert VALIDATOR.feedback(json.dumps(feedback(3, "rating", 2.5, 5)).encode()).value == 2.5


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"event_time_ms": -1}, ["event_time_ms", "-1", "greater than or equal to 0"]),
        ({"user_id": "u1"}, ["user_id", "must be int", "'u1'"]),
        ({"item_id": 7}, ["item_id", "must be str", "7"]),
        ({"context": {"hour": 1.5}}, ["context.hour", "must be int", "1.5"]),
        ({"context": {"day": 1}}, ["context.'day'", "hour"]),
        ({"surprise": 1}, ["surprise", "1"]),
        ({"impression_id": ""}, ["impression_id", "''"]),
    ],
)
def test_the_reason_names_the_field_the_value_and_what_is_allowed(changes, parts):
    with pytest.raises(InvalidInputError) as caught:
        VALIDATOR.impression(json.dumps(impression(1, 5, **changes)).encode())
    assert all(part in str(caught.value) for part in parts), str(caught.value)


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"task": "love"}, ["task", "like, rating", "'love'"]),
        ({"value": 2}, ["value", "0 or 1", "2"]),
        ({"value": True}, ["value", "True"]),
        ({"value": None}, ["value", "None"]),
    ],
)
def test_feedback_of_an_unknown_task_or_with_a_value_that_is_not_allowed_is_refused(changes, parts):
    with pytest.raises(InvalidInputError) as caught:
        VALIDATOR.feedback(json.dumps(feedback(1, "like", 1, 5) | changes).encode())
    assert all(part in str(caught.value) for part in parts), str(caught.value)


@pytest.mark.parametrize("value", [None, b"", b"\xff\xfe", b"[]", b"null", b"x" * 5_000])
def test_bytes_that_are_no_event_are_refused_in_few_words(value):
    with pytest.raises(InvalidInputError) as caught:
        VALIDATOR.impression(value)
    assert len(str(caught.value)) < 1_000
