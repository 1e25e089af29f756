"""What becomes of impressions, and how long an example takes to the first answer that it could have moved."""

from pathlib import Path

import numpy as np
import pytest

from lab.demo.outcome import Joined, Outcome, freshness_seconds, joined
from lab.dev.client import Answer


def answer(at_seconds: float, version: str | None) -> Answer:
    return Answer(at_seconds, 1.0, version, degraded=False, retries=0, fault=None if version else "HTTP 500")


def test_missing_doubled_and_unknown_examples_are_told_apart() -> None:
    times = {"a": 1, "b": 2, "x": 1}
    assert joined({"a", "b", "c"}, times) == Joined(impressions=3, examples=4, missing=1, doubled=1, unknown=1)


def test_an_example_is_fresh_with_the_first_answer_of_a_version_that_has_learnt_it() -> None:
    answers = [answer(1.0, "v1"), answer(2.0, None), answer(3.0, "v2"), answer(4.0, "v2"), answer(9.0, "v3")]
    seconds = freshness_seconds([0.5, 1.5, 3.5, 5.0, 6.0], {"v1": 0, "v2": 2, "v3": 4}, answers)
    assert seconds.tolist() == [2.5, 1.5, 5.5, 4.0, np.inf]


def test_an_older_version_that_answers_again_makes_nothing_fresher() -> None:
    answers = [answer(2.0, "v2"), answer(3.0, "v1"), answer(4.0, "unknown"), answer(5.0, "v3")]
    seconds = freshness_seconds([1.0, 1.0, 1.0], {"v1": 1, "v2": 2, "v3": 3}, answers)
    assert seconds.tolist() == [1.0, 1.0, 4.0]


@pytest.mark.parametrize(
    ("examples", "answers", "median", "p99"),
    [(0, 1, None, None), (1, 0, None, None), (20, 19, 10.0, None)],
    ids=["no example", "no answer", "19 of 20 answered"],
)
def test_a_quantile_that_no_answer_reached_is_none(
    examples: int, answers: int, median: float | None, p99: float | None
) -> None:
    outcome = Outcome(
        joined=Joined(0, 0, 0, 0, 0),
        came_at_seconds=[0.0] * examples,
        answers=[answer(float(i), f"v{i + 1}") for i in range(answers)],
        hits=[],
        scorer_swaps=0,
        dead_letters=0,
        examples_of_version={f"v{i + 1}": i + 1 for i in range(answers)},
        restarts={},
        versions=Path(),
        logs=Path(),
    )
    assert (outcome.freshness_seconds(0.5), outcome.freshness_seconds(0.99)) == (median, p99)
