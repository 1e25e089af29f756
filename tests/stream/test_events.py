"""Records that are made of checked fields are what pydantic makes."""

import json
import pickle

import pytest
from pydantic import ValidationError

from stream.events import Feedback
from stream.join.validation import Validator
from tests.stream.pair import SPEC, TASKS

FIELDS = {"impression_id": "i1", "task": "like", "value": 1, "event_time_ms": 5}


def test_a_record_of_checked_fields_is_the_record_that_pydantic_makes_of_them():
    made, expected = Feedback.of_checked(dict(FIELDS)), Feedback(**FIELDS)
    assert made == expected == Feedback.model_construct(**FIELDS)
    assert made.model_dump_json() == expected.model_dump_json()
    assert made.model_fields_set == expected.model_fields_set
    assert (made.model_extra, repr(made), hash(made)) == (expected.model_extra, repr(expected), hash(expected))
    assert pickle.loads(pickle.dumps(made)) == made.model_copy() == expected
    with pytest.raises(ValidationError, match="frozen"):
        made.value = 0


def test_an_event_lists_its_fields_in_one_order_however_they_came():
    came = json.dumps({name: FIELDS[name] for name in reversed(FIELDS)}).encode()
    assert Validator(SPEC, TASKS).feedback(came).model_dump_json() == Feedback(**FIELDS).model_dump_json()
