"""What is refused, and what the reason says."""

import json

import pytest
from pydantic import ValidationError

from features.spec import Feature
from runtime.errors import InvalidInputError
from stream.events import Example, Impression, TeacherRequest
from stream.join.validation import Validator
from stream.tasks import TaskSpec
from tests.stream.pair import SPEC, TASKS, feedback, impression

VALIDATOR = Validator(SPEC, TASKS)


def test_a_valid_impression_and_valid_feedback_are_parsed():
    assert VALIDATOR.impression(json.dumps(impression(3, 5)).encode()).context == {"hour": 3}
    assert VALIDATOR.feedback(json.dumps(feedback(3, "rating", 2.5, 5)).encode()).value == 2.5


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"event_time_ms": -1}, ["event_time_ms", "-1", "greater than or equal to 0"]),
        ({"user_id": "u1"}, ["user_id", "allowed is an integer in [-2^63, 2^63)", "'u1'"]),
        ({"item_id": 7}, ["item_id", "allowed is a string of 1 to 256 characters", "got 7"]),
        ({"context": {"hour": 1.5}}, ["context.hour", "allowed is an integer in [-2^63, 2^63)", "1.5"]),
        ({"context": {"day": 1}}, ["context.day", "allowed is an object with any of hour"]),
        ({"surprise": 1}, ["surprise", "allowed is an object with impression_id, ", "1"]),
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
        ({"task": "rating", "value": 10**400}, ["value", "allowed is a finite number", "1000"]),
    ],
)
def test_feedback_of_an_unknown_task_or_with_a_value_that_is_not_allowed_is_refused(changes, parts):
    with pytest.raises(InvalidInputError) as caught:
        VALIDATOR.feedback(json.dumps(feedback(1, "like", 1, 5) | changes).encode())
    assert all(part in str(caught.value) for part in parts), str(caught.value)


RANGED = Validator(SPEC, [TaskSpec(name="rating", kind="regression", window_seconds=60, range=(1, 5))])


@pytest.mark.parametrize("value", [1, 1.0, 4.5, 5])
def test_feedback_within_a_tasks_range_is_valid(value):
    assert RANGED.feedback(json.dumps(feedback(1, "rating", value, 5)).encode()).value == value


@pytest.mark.parametrize(("value", "told"), [(0.999, "0.999"), (5.001, "5.001"), (-1e6, "-1000000.0"), (1e39, "1e+39")])
def test_feedback_outside_a_tasks_range_is_refused_with_the_range_and_the_value(value, told):
    with pytest.raises(InvalidInputError) as caught:
        RANGED.feedback(json.dumps(feedback(1, "rating", value, 5)).encode())
    assert str(caught.value) == f"value: of the regression task rating must be in [1, 5], got {told}"


@pytest.mark.parametrize(("value", "told"), [(1.1e9, "1100000000.0"), (-1e39, "-1e+39"), (2**62, f"{2**62}")])
def test_a_regression_without_a_range_has_a_finite_bound_and_the_reason_says_how_to_widen_it(value, told):
    with pytest.raises(InvalidInputError) as caught:
        VALIDATOR.feedback(json.dumps(feedback(1, "rating", value, 5)).encode())
    assert str(caught.value) == (
        f"value: of the regression task rating must be in [-1e+09, 1e+09], got {told}; "
        "if such labels are meant, declare the task's range in graft.toml"
    )


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e999", "true", '"3"', "9" * 309])
def test_a_label_that_is_no_finite_number_is_refused(value):
    message = json.dumps(feedback(1, "rating", 3, 5)).replace('"value": 3', f'"value": {value}')
    with pytest.raises(InvalidInputError, match=r"^(value|the message): "):
        RANGED.feedback(message.encode())


@pytest.mark.parametrize(
    ("kind", "bounds", "reason"),
    [
        ("binary", [0, 1], "range must not be set for the binary task t, whose labels are 0 and 1"),
        ("regression", [5, 1], "the lower one first, of a size up to 1e+12, got [5, 1]"),
        ("regression", [1, 1], "the lower one first"),
        ("regression", [0, float("inf")], "got [0, inf]"),
        ("regression", [float("nan"), 1], "got [nan, 1]"),
        ("regression", [0, 1e13], "got [0, 1e+13]"),
    ],
)
def test_a_range_is_two_finite_numbers_of_a_regression(kind, bounds, reason):
    with pytest.raises(ValidationError) as caught:
        TaskSpec.model_validate({"name": "t", "kind": kind, "window_seconds": 60, "range": bounds})
    assert reason in str(caught.value)


def test_all_faults_of_an_event_are_told_at_once():
    bad = impression(1, -1, item_id=7, context={"hour": "x", "day": 1})
    with pytest.raises(InvalidInputError) as caught:
        VALIDATOR.impression(json.dumps(bad).encode())
    assert [fault.split(":")[0] for fault in str(caught.value).split("; ")[::2]] == [
        "item_id",
        "event_time_ms",
        "context.hour",
        "context.day",
    ]


def test_a_context_keeps_the_order_of_the_event():
    context = ("day", "hour"), ("hour", "day")
    names = [Feature(name=f"context:{n}", source="context", role="dense", dtype="int", default=0) for n in context[0]]
    validator = Validator(SPEC.model_copy(update={"features": tuple(names)}), TASKS)
    for order in context:
        event = impression(1, 5, context=dict.fromkeys(order, 3))
        assert list(validator.impression(json.dumps(event).encode()).context) == list(order)


@pytest.mark.parametrize("value", [None, b"", b"\xff\xfe", b"[]", b"null", b"x" * 5_000])
def test_bytes_that_are_no_event_are_refused_in_few_words(value):
    with pytest.raises(InvalidInputError) as caught:
        VALIDATOR.impression(value)
    assert len(str(caught.value)) < 1_000


def test_records_that_an_earlier_version_wrote_with_a_longer_context_are_still_read():
    """They stand in state logs and example logs; a restart after an upgrade must not fail on them."""
    context = {"device": "x" * 300, "hour": 2**70, "price": 1e39}
    row = impression(1, 5, context=context, spec_id="s", features=[1])
    assert TeacherRequest.model_validate_json(json.dumps(row)).context == context
    assert Example.model_validate_json(json.dumps({**row, "labels": {}})).context == context
    with pytest.raises(ValidationError):
        Impression.model_validate_json(json.dumps(impression(1, 5, context=context)))
