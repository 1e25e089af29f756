"""The verdict of a run finds what it is there to find, and one seed is one run."""

import base64
import itertools
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lab.dev.client import Answer
from stream.config import StreamConfig
from stream.tasks import TaskSpec
from tests.chaos.events import Sent, traffic_of
from tests.chaos.learner import batches_of
from tests.chaos.troubles import KILLS, TROUBLES, plan_of
from tests.chaos.verdict import scores_line
from tests.outcomes import Input, Letter, Outcomes, Rules

RULES = Rules(StreamConfig(idle_seconds=5), [TaskSpec(name="click", kind="binary", window_seconds=10)])
SHOWN = {"impression_id": "a", "user_id": 1, "item_id": 1, "event_time_ms": 1_000}
CLICKED = {"impression_id": "a", "task": "click", "value": 1, "event_time_ms": 2_000}
CLICK = json.dumps(CLICKED).encode()


def outcomes(
    examples: list[tuple[str, dict[str, float | None]]], letters: Any = (), *, requests: tuple[str, ...] = ("a",)
) -> list[tuple[str, str]]:
    """The faults of one impression with one click, of which this came out."""
    messages = [
        Input(("impressions", 0, 0), json.dumps(SHOWN).encode(), is_invalid=False, appended_ms=1_000, visible_ms=1_000),
        Input(("feedback", 0, 0), CLICK, is_invalid=False, appended_ms=2_000, visible_ms=2_000),
        Input(("feedback", 0, 1), b"x", is_invalid=True, appended_ms=2_000, visible_ms=2_000),
    ]
    invalid = (("feedback", 0, 1), Letter("invalid", b"x", -1))
    found = Outcomes(RULES, ("impressions", "feedback"), messages, [invalid, *letters], examples, requests)
    return [(fault.kind, fault.text) for fault in found.faults()]


def test_a_good_run_has_no_fault() -> None:
    assert outcomes([("a", {"click": 1.0})]) == []


@pytest.mark.parametrize(
    ("examples", "letters", "requests", "kind"),
    [
        ([], [], ("a",), "lost"),
        ([("a", {"click": 1.0})], [], (), "lost"),
        ([("a", {"click": 1.0})] * 2, [], ("a",), "doubled"),
        ([("a", {"click": 1.0})], [], ("a", "a"), "doubled"),
        ([("a", {"click": 1.0}), ("b", {"click": 0.0})], [], ("a", "b"), "unknown"),
        ([("a", {"click": 0.0})], [], ("a",), "labels"),
        ([("a", {"click": 0.0})], [(("feedback", 0, 0), Letter("late", CLICK, -1))], ("a",), "labels"),
        ([("a", {"click": 1.0})], [(("feedback", 0, 1), Letter("invalid", b"x", -1))], ("a",), "doubled"),
        ([("a", {"click": 1.0})], [(("feedback", 0, 9), Letter("invalid", b"x", -1))], ("a",), "dead letter"),
    ],
)  # fmt: skip
def test_what_is_lost_doubled_or_wrong_is_a_fault(examples: Any, letters: Any, requests: Any, kind: str) -> None:
    assert kind in {found for found, _ in outcomes(examples, letters, requests=requests)}


def test_a_restart_undoes_in_the_journal_what_its_version_has_not_learnt(tmp_path: Path) -> None:
    def line(before: int, *ids: str) -> str:
        logits = base64.b64encode(np.zeros((len(ids), 3), np.float32).tobytes()).decode()
        return json.dumps({"before": before, "impression_ids": ids, "logits": logits})

    journal = tmp_path / "journal.jsonl"
    lines = [line(0, "a", "b"), line(2, "c", "d"), line(4, "e", "f"), line(6, "g", "h")[:30], line(2, "c", "e")]
    journal.write_text("\n".join(lines))
    assert [(batch.before, batch.impression_ids) for batch in batches_of(journal)] == [(0, ["a", "b"]), (2, ["c", "e"])]


def test_a_request_that_fails_while_the_scorer_is_up_is_a_fault() -> None:
    lost = Answer(at_seconds=10.0, latency_ms=500.0, version="v1", degraded=False, retries=1, fault=None)
    assert scores_line([lost], [(10.2, 14.0)]).faults == []
    assert len(scores_line([lost], [(11.0, 14.0)]).faults) == 1
    assert len(scores_line([lost._replace(retries=0, fault="HTTP 500")], []).faults) == 1


def test_a_plan_has_every_trouble_once_and_one_seed_is_one_plan() -> None:
    plan = plan_of(3, ["a", "b"], has_disk=True)
    assert sorted(trouble.name for trouble in plan.troubles) == sorted(TROUBLES)
    assert all(a.at + a.seconds < b.at for a, b in itertools.pairwise(plan.troubles))
    assert len(plan.kills) == KILLS
    assert plan == plan_of(3, ["a", "b"], has_disk=True)


def test_a_seed_is_the_same_traffic_each_time_with_poison_in_it() -> None:
    first, again = (traffic_of(7, 60, 10, 10_000, 1_700_000_000_000) for _ in range(2))
    assert first == again
    assert Counter(sent.is_invalid for sent in first)[True] > 10
    assert all(isinstance(sent, Sent) and sent.at_ms >= 0 for sent in first)
