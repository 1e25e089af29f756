"""Writes the JSON Schemas of the records that outsiders send, read and are answered with.

python docs/schemas/generate.py
"""

import json
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from stream.events import Example, Feedback, Impression, TeacherRequest
from student.serve.requests import ScoreReply, ScoreRequest

FOLDER = Path(__file__).parent
DRAFT = "https://json-schema.org/draft/2020-12/schema"
RECORDS = {
    "impression": Impression,
    "feedback": Feedback,
    "score-request": ScoreRequest,
    "score-reply": ScoreReply,
    "example": Example,
    "teacher-request": TeacherRequest,
}


def schemas() -> dict[str, str]:
    """File name -> the schema's text."""
    return {f"{name}.schema.json": _text(name, record) for name, record in RECORDS.items()}


def main() -> None:
    """Write each schema into this folder."""
    for name, text in schemas().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
        print(FOLDER / name)


def _text(name: str, record: type) -> str:
    schema = TypeAdapter(record).json_schema()
    named = {"$schema": DRAFT, "$id": f"{name}.schema.json", "title": name, **_untitled(schema)}
    return json.dumps(named, indent=2) + "\n"


def _untitled(schema: Any) -> Any:
    """The schema without pydantic's titles, which repeat the names of the fields."""
    if isinstance(schema, list):
        return [_untitled(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    return {key: _untitled(part) for key, part in schema.items() if key != "title"}


if __name__ == "__main__":
    main()
