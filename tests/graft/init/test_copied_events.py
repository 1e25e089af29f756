"""An event file in the documented form is copied as it is, and init says what of it the stream would not take."""

import json

import pytest


def events(user=lambda n: n % 5):
    lines = []
    for n in range(60):
        shown = {"type": "impression", "impression_id": f"e{n}", "event_time_ms": 1_700_000_000_000 + n}
        lines.append({**shown, "user_id": user(n), "item_id": n % 7})
        lines.append({**shown, "type": "feedback", "task": "like", "value": n % 2})
    return "".join(json.dumps(line) + "\n" for line in lines)


@pytest.mark.parametrize(
    ("user", "unusable"), [(float, 60), (lambda n: str(n % 5) if n % 2 else n % 5, 30), (lambda n: n % 5, 0)]
)
def test_events_that_the_stream_would_not_take_are_noted_with_the_first_one(tmp_path, summary, user, unusable):
    (tmp_path / "in.jsonl").write_text(events(user))
    said = summary("--events", tmp_path / "in.jsonl")
    told = [note for note in said["notes"] if "would become dead letters" in note]
    assert len(told) == bool(unusable)
    assert (tmp_path / "shop" / "events.jsonl").read_text() == (tmp_path / "in.jsonl").read_text()
    if told:
        assert f"{unusable} of the first 120 events would become dead letters" in told[0]
        assert "user_id: Input should be a valid integer" in told[0]
