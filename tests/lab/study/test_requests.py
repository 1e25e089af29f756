"""When labels are known, and when a study's impressions are scored: as they come, before what is known only later."""

from itertools import pairwise

import numpy as np

from lab.study.learners.cell import Requests
from lab.study.log.study_log import known_after


def test_labels_are_known_to_the_impressions_that_come_after_the_delay() -> None:
    """10 s after the impressions: at 10 s the first is known, at 12 s the second, at 15 s the third."""
    known = known_after(10, [1000 * second for second in (0, 2, 5, 11, 12, 40)])
    assert known.tolist() == [3, 4, 5, 5, 5, 6]


def test_labels_may_be_known_a_number_of_impressions_later() -> None:
    assert known_after(0, [0] * 3).tolist() == [1, 2, 3]


def test_a_time_that_steps_back_makes_nothing_known_earlier() -> None:
    known = known_after(10, [1000 * second for second in (0, 30, 5, 16, 41, 50)])
    assert all(low <= high for low, high in pairwise(known.tolist()))
    assert known.tolist() == [1, 4, 4, 4, 6, 6]


def test_an_impression_is_scored_before_what_is_known_only_later_is_learnt() -> None:
    """At the step that learns the first two, which the fifth impression knows, the first four have come."""
    requests = Requests(known_after(10, [1000 * second for second in (0, 2, 5, 11, 12, 40)]))
    assert requests.before(2) == slice(0, 4)
    assert requests.before(4) == slice(4, 5)
    assert requests.before(5) == slice(5, 5)
    assert requests.before(6) == slice(5, 6)


def test_every_impression_is_scored_once() -> None:
    requests = Requests(known_after(7, [1000 * second for second in range(50)]))
    given = [requests.before(n) for n in range(0, 51, 5)]
    assert [n for rows in given for n in np.arange(50)[rows].tolist()] == list(range(50))
