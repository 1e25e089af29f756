"""The JSON Schemas in docs/schemas/ are the code's, and fit what is sent."""

import json
import runpy
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from stream.events import Example, TeacherRequest
from stream.replay.event_file import read_events

_ROOT = Path(__file__).parents[1]
_FOLDER = _ROOT / "docs/schemas"
_NAMES = ("impression", "feedback", "score-request", "score-reply", "example", "teacher-request")

IMPRESSION = {"impression_id": "i", "user_id": 1, "item_id": "a", "event_time_ms": 5, "context": {"hour": 3}}
FEEDBACK = {"impression_id": "i", "task": "like", "value": 1, "event_time_ms": 6}
REQUEST = {"user_id": 1, "item_ids": ["a"], "context": {"hour": 3.5}}


def validator(name: str) -> Draft202012Validator:
    schema = json.loads((_FOLDER / f"{name}.schema.json").read_text("utf-8"))
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def test_the_schemas_are_what_the_code_gives_now() -> None:
    """If not: python docs/schemas/generate.py."""
    given = runpy.run_path(str(_FOLDER / "generate.py"))["schemas"]()
    assert {path.name: path.read_text("utf-8") for path in _FOLDER.glob("*.json")} == given
    assert sorted(given) == sorted(f"{name}.schema.json" for name in _NAMES)


@pytest.mark.parametrize("name", _NAMES)
def test_every_field_of_a_schema_has_a_description_and_no_other_is_allowed(name: str) -> None:
    schema = validator(name).schema
    assert schema["additionalProperties"] is False
    assert schema["description"]
    assert [field for field, of in schema["properties"].items() if not of.get("description")] == []


def test_every_event_of_the_fixtures_fits_its_schema() -> None:
    validators = {kind: validator(kind) for kind in ("impression", "feedback")}
    counts = dict.fromkeys(validators, 0)
    for event in read_events(_ROOT / "fixtures/simulated/events.jsonl"):
        validators[event.kind].validate(json.loads(event.value))
        counts[event.kind] += 1
    assert counts == {"impression": 3_000, "feedback": 2_192}


@pytest.mark.parametrize(
    ("name", "record", "changes"),
    [
        ("impression", IMPRESSION, {"event_time_ms": -1}),
        ("impression", IMPRESSION, {"user_id": 2**63}),
        ("impression", IMPRESSION, {"item_id": ""}),
        ("impression", IMPRESSION, {"context": {"device": "x" * 257}}),
        ("impression", IMPRESSION, {"context": {"price": 1e39}}),
        ("impression", IMPRESSION, {"type": "impression"}),
        ("feedback", FEEDBACK, {"value": "1"}),
        ("score-request", REQUEST, {"item_ids": []}),
        ("score-request", REQUEST, {"item_ids": ["a"] * 1_001}),
        ("score-request", REQUEST, {"limit": 5}),
    ],
)
def test_a_schema_refuses_what_the_stream_or_the_scorer_refuses(
    name: str, record: dict[str, Any], changes: dict[str, Any]
) -> None:
    assert validator(name).is_valid(record)
    assert not validator(name).is_valid({**record, **changes})


def test_what_graft_writes_fits_its_schema() -> None:
    row = {**IMPRESSION, "spec_id": "0123456789abcdef", "features": [1, None, "a", [0.5]]}
    validator("teacher-request").validate(json.loads(TeacherRequest(**row).model_dump_json()))
    labels = {"like": 1.0, "rating": None}
    validator("example").validate(json.loads(Example(**row, labels=labels).model_dump_json()))
