"""What counts as an impression that was sent."""

from pathlib import Path

import pytest

from lab.demo.events import read_events
from runtime.errors import InvalidInputError

_IMPRESSION = '{"type":"impression","impression_id":"%s","user_id":1,"item_id":"x","event_time_ms":5}\n'


def test_duplicates_count_once_and_bad_lines_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    feedback = '{"type":"feedback","impression_id":"a","task":"like","value":1,"event_time_ms":6}\n'
    bad = "not json\n", "[1]\n", '{"type":"impression","impression_id":""}\n'
    path.write_text(_IMPRESSION % "a" + feedback + _IMPRESSION % "b" + _IMPRESSION % "a" + "".join(bad))
    told: list[tuple[int, int]] = []
    found = read_events(path, lambda done, total: told.append((done, total)))
    assert found == (7, frozenset({"a", "b"}), {1: {}}, ["x"])
    assert told[-1] == (7, 7)


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ("{}", "none of its 1 rows is a valid impression or feedback"),
        ('{"type": "feedback"}', "at least one valid impression, found none in 1 events"),
    ],
)
def test_a_file_without_a_valid_impression_is_refused(tmp_path: Path, row: str, told: str) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text(f"{row}\n")
    with pytest.raises(InvalidInputError, match=told):
        read_events(path)
