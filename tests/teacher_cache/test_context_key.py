"""The digest of a context: the same for the same values on every machine, another one for others."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.online.reader import context_value
from features.spec import Feature
from stream.events import Example, TeacherRequest
from stream.log.example_file import read, write
from stream.log.examples import ExampleRecord
from teacher_cache.domain.context_key import NO_CONTEXT, ContextKey, context_digest, context_features
from tests.teacher_cache.hourly import CONFIG, CONTEXT, SPEC, hourly_request

_GOLDEN: dict[str, dict[str, Any]] = {
    "44136fa355b3678a": {},
    "788163f7f53b3bd1": {"context:hour": 21},
    "f7b2779ea7fbacfa": {"context:hour": 21.0},
    "5f6b89aadd8b0a43": {"context:hour": "21"},
    "c7d8f0601551000f": {"context:hour": 0.1, "context:device": "tel\u00e9fono \U0001f4f1", "context:odd": "\ud800"},
    "75dce0bc753a3a3e": {"context:n": -(2**63), "context:x": -0.0, "context:y": 1e-320, "context:z": 3.4e38},
}


@pytest.mark.parametrize("digest", _GOLDEN)
def test_the_digests_are_those_of_every_python_and_machine(digest: str) -> None:
    """Another value here makes every logit of a teacher that sees a context a miss: CHANGELOG.md says so."""
    assert context_digest(_GOLDEN[digest]) == digest
    assert context_digest(dict(reversed(_GOLDEN[digest].items()))) == digest


def test_a_missing_value_is_as_good_as_an_absent_one_and_every_nan_is_one_thing() -> None:
    assert context_digest({"a": None, "b": 1}) == context_digest({"b": 1})
    other_nan = -math.nan
    assert context_digest({"a": math.nan}) == context_digest({"a": other_nan})
    assert context_digest({"a": math.nan}) != context_digest({})


_values = st.none() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text(max_size=8)
_contexts = st.dictionaries(st.sampled_from(["context:a", "context:b", "context:ab"]), _values)


def _told(context: dict[str, Any]) -> Any:
    """What makes a context another one: each value with its type, and of floats the bits."""
    return {n: (type(v), v.hex() if isinstance(v, float) else v) for n, v in context.items() if v is not None}


@given(one=_contexts, other=_contexts)
def test_contexts_have_one_digest_where_their_values_are_equal_and_of_one_type(one: Any, other: Any) -> None:
    assert (context_digest(one) == context_digest(other)) == (_told(one) == _told(other))


def test_one_type_a_feature_whatever_number_an_event_has() -> None:
    assert CONTEXT.of(hourly_request(1, 5, 3).features) == CONTEXT.of(hourly_request(2, 5, 3.0).features)
    whole = Feature(name="context:hour", source="context", role="dense", dtype="int", default=0)
    assert context_value(whole, 3.0) is None  # so an event with it is in the context without an hour


def test_features_that_do_not_feed_the_teacher_are_not_in_it() -> None:
    assert context_features(CONFIG, SPEC) == ["context:hour"]
    phone, car = hourly_request(1, 5, 3, device="phone"), hourly_request(2, 7, 3, user_id=9, device="car")
    assert CONTEXT.of(phone.features) == CONTEXT.of(car.features) == context_digest({"context:hour": 3.0})
    assert CONTEXT.of(hourly_request(3, 5, None).features) == context_digest({})


def test_a_teacher_that_sees_no_context_has_none() -> None:
    blind = CONFIG.model_copy(update={"inputs": {"item": CONFIG.inputs["item"]}})
    assert ContextKey.seen_by(blind, SPEC).of(hourly_request(1, 5, 3).features) == ""
    assert NO_CONTEXT.of([]) == ""


def test_a_row_of_another_spec_breaks_nothing() -> None:
    assert CONTEXT.of([]) == context_digest({})


@given(hour=st.none() | st.integers(-(2**63), 2**63 - 1) | st.floats(-3.4e38, 3.4e38))
def test_the_scorer_and_the_learner_have_one_context_of_an_impression(
    tmp_path_factory: pytest.TempPathFactory, hour: Any
) -> None:
    asked = hourly_request(0, 5, hour)
    digest = CONTEXT.of(asked.features)
    assert CONTEXT.of(TeacherRequest.model_validate_json(asked.model_dump_json()).features) == digest
    example = Example(**asked.model_dump(), labels={"like": 1.0})
    assert CONTEXT.of(Example.model_validate_json(example.model_dump_json()).features) == digest
    assert CONTEXT.of(json.loads(json.dumps(example.features))) == digest
    (record,) = _logged(tmp_path_factory.mktemp("log"), example)
    assert CONTEXT.of(record.example.features) == digest


def _logged(folder: Path, example: Example) -> list[ExampleRecord]:
    return next(read(write(folder, 0, [ExampleRecord(0, 0, example)]), 0))
