"""What the beginning of an event file tells, and what is refused at once."""

import json
import shlex
from pathlib import Path

import pytest

from features.spec import Feature
from lab.dev import session
from lab.dev.run import LIMITS, curl_line, max_lag
from lab.dev.session import sample_of, write_first
from lab.dev.watch import Sample
from runtime.errors import InvalidInputError
from stream.replay.event_file import impressions_of
from stream.tasks import TaskSpec
from tests.specs import spec_of

_TASKS = [TaskSpec(name="like", kind="binary", window_seconds=10)]
_SPEC = spec_of(Feature(name="context:device", source="context", role="categorical", dtype="str", default="tv"))
_FEEDBACK = '{"type": "feedback", "impression_id": "a", "task": "like", "value": 1, "event_time_ms": 6}'


def _impression(name: str, user: object, item: object, **context: object) -> str:
    shown = {"impression_id": name, "user_id": user, "item_id": item, "event_time_ms": 5, "context": context}
    return json.dumps({"type": "impression", **shown}, ensure_ascii=False)


def _file(tmp_path: Path, *lines: str) -> Path:
    path = tmp_path / "events.jsonl"
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def test_a_sample_has_each_user_with_their_last_context_and_the_items_most_shown_first(tmp_path: Path) -> None:
    shown = [_impression("a", 1, 7), _impression("b", 1, 8, device="phone"), _impression("c", 2, 8)]
    found = sample_of(_file(tmp_path, shown[0], _FEEDBACK, *shown[1:], "no event"), _SPEC, _TASKS, 0.9)
    assert (found.contexts, found.items) == ({1: {"device": "phone"}, 2: {}}, [8, 7])
    assert 80 < found.impression_bytes < 130


def test_only_the_beginning_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "LOOKED_AT", 2)
    path = _file(tmp_path, *(_impression(str(i), i, i) for i in range(5)))
    assert list(sample_of(path, _SPEC, _TASKS, 0.9).contexts) == [0, 1]
    write_first(path, tmp_path / "first.jsonl", 3)
    assert [shown.impression_id for shown in impressions_of(tmp_path / "first.jsonl")] == ["0", "1", "2"]


def test_where_the_project_allows_any_share_of_unusable_events_one_impression_will_do(tmp_path: Path) -> None:
    path = _file(tmp_path, *[_impression("a", 1.0, 7)] * 20, _impression("b", 1, 7))
    assert sample_of(path, _SPEC, _TASKS, 1.0).items == [7]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([], "there are no events in it"),
        ([_FEEDBACK], "of the first 1 events 0 cannot be used and 0 are impressions"),
        ([_impression("a", "anna", 7)] * 20, "20 cannot be used and 0 are impressions.*; line 1: user_id"),
        ([_impression("a", 1.0, 7)] * 20 + [_impression("b", 1, 7)], "20 cannot be used and 1 are impressions"),
    ],
)
def test_events_of_which_nothing_could_be_learnt_are_refused_with_the_first_fault(
    tmp_path: Path, lines: list[str], said: str
) -> None:
    with pytest.raises(InvalidInputError, match=said):
        sample_of(_file(tmp_path, *lines), _SPEC, _TASKS, 0.9)


@pytest.mark.parametrize("user", ["o'hara", 'a "b"', "$(rm -r /)", "böse \U0001f600", "tab\tescape\x1b[31m", 17])
def test_the_curl_line_is_what_a_shell_hands_on_and_sends_no_control_character(user: str | int) -> None:
    line = curl_line(Sample({user: {"device": "phone"}}, ["i1", "i2", "i3", "i4"], 100.0), 8080)
    *command, body = shlex.split(line)
    assert command == ["curl", "-s", "http://127.0.0.1:8080/score", "-d"]
    assert json.loads(body) == {"user_id": user, "item_ids": ["i1", "i2", "i3"], "context": {"device": "phone"}}
    assert line.isprintable()


def test_readers_may_be_less_far_behind_where_the_examples_are_larger() -> None:
    embedding = Feature(name="v:e", source="item", role="embedding", dtype="float_list", default=[0.0] * 500)
    kept = LIMITS.retention_bytes - LIMITS.segment_bytes
    assert max_lag(_SPEC, 120.0) == 4_000
    wide = max_lag(spec_of(embedding), 120.0)
    assert wide * (120 + 500 * 20) < kept / 2 + 20_000
    assert max_lag(_SPEC, 900_000.0) == 50
