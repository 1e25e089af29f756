"""From an example on the topic to the first answer that it could have moved."""

import numpy as np

from lab.demo.outcome import freshness_seconds, quantile_seconds
from lab.dev.client import Answer


def answer(at_seconds: float, version: str | None) -> Answer:
    return Answer(at_seconds, 1.0, version, degraded=False, retries=0, fault=None if version else "HTTP 500")


def test_an_example_is_fresh_with_the_first_answer_of_a_version_that_has_learnt_it() -> None:
    answers = [answer(1.0, "v1"), answer(2.0, None), answer(3.0, "v2"), answer(4.0, "v2"), answer(9.0, "v3")]
    seconds = freshness_seconds([0.5, 1.5, 3.5, 5.0, 6.0], {"v1": 0, "v2": 2, "v3": 4}, answers)
    assert seconds.tolist() == [2.5, 1.5, 5.5, 4.0, np.inf]


def test_an_older_version_that_answers_again_makes_nothing_fresher() -> None:
    answers = [answer(2.0, "v2"), answer(3.0, "v1"), answer(4.0, "unknown"), answer(5.0, "v3")]
    seconds = freshness_seconds([1.0, 1.0, 1.0], {"v1": 1, "v2": 2, "v3": 3}, answers)
    assert seconds.tolist() == [1.0, 1.0, 4.0]


def test_a_quantile_that_no_answer_reached_is_none() -> None:
    assert quantile_seconds(np.array([]), 0.5) is None
    assert quantile_seconds(freshness_seconds([1.0], {}, []), 0.5) is None
    seconds = np.array([*range(19), np.inf])
    assert quantile_seconds(seconds, 0.5) == 10.0
    assert quantile_seconds(seconds, 0.99) is None
