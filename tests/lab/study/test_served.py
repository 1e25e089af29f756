"""What a served prediction knows: nothing of labels that were not known when its impression came."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lab.study.grid import Grid, Variant
from lab.study.learners.cell import Predictions, Requests, Teaching, run_cell
from lab.study.learners.plan import Cell, cells_of
from lab.study.log.log_in_memory import recounted
from lab.study.log.study_log import Arriving, StudyLog, known_after
from runtime.errors import InvalidInputError
from tests.lab.study.conftest import Pair

_ROWS, _CHANGED, _DELAY = 400, 200, 60


def _cells(pair: Pair) -> list[Cell]:
    variant = Variant(name="v", tables={"student": {"micro_batch": 4, "replay_batches": 1}})
    grid = Grid(seeds=1, baseline="v", windows=[0], label_delay_seconds=3600, variants=[variant])
    return cells_of(grid, pair.project, pair.spec)


def _counted(pair: Pair, log: StudyLog, rows: int) -> StudyLog:
    return recounted(log, pair.project.features.aggregates, pair.day_zero.sources.pushed, _known(log, rows))


def _known(log: StudyLog, rows: int) -> NDArray[np.intp]:
    """Labels are known so many rows after the next one."""
    count = len(log.records)
    return np.minimum(np.arange(count) + 1 + rows, count)


def _log(pair: Pair, *, changed: bool) -> StudyLog:
    """The first examples; with other labels from one of them on, which all later features know, as joined."""
    records = list(pair.log.records[:_ROWS])
    if changed:
        for n in range(_CHANGED, _ROWS):
            example = records[n].example
            labels = {"click": 1 - (example.labels["click"] or 0), "dwell": 5.0}
            records[n] = records[n]._replace(example=example.model_copy(update={"labels": labels}))
    return _counted(pair, StudyLog(pair.spec, records), rows=2)


def _predicted(pair: Pair, cell: Cell, logits: NDArray[np.float32], *, changed: bool) -> Predictions:
    log, logit_NT = _log(pair, changed=changed), logits[:_ROWS]
    arriving = Arriving(_counted(pair, log, rows=_DELAY), logit_NT, _known(log, _DELAY))
    return run_cell(cell, log, Teaching(logit_NT), arriving)[1]


@pytest.mark.parametrize("place", [0, 1], ids=["learner", "plain models"])
def test_a_served_prediction_knows_no_label_before_its_delay(
    pair: Pair, logits: NDArray[np.float32], place: int
) -> None:
    """Neither what has learnt them nor the running aggregates among its features; one row by row knows all."""
    cell: Any = _cells(pair)[place]
    ours, theirs = (_predicted(pair, cell, logits, changed=changed) for changed in (False, True))
    unknown, known = slice(0, _CHANGED + 1 + _DELAY), slice(_CHANGED + 1 + _DELAY + 8, None)
    assert np.array_equal(ours.served_NKA[unknown], theirs.served_NKA[unknown], equal_nan=True)
    assert not np.array_equal(ours.served_NKA[known], theirs.served_NKA[known], equal_nan=True)
    assert np.array_equal(ours.seen_NKA[:_CHANGED], theirs.seen_NKA[:_CHANGED], equal_nan=True)
    assert not np.array_equal(ours.seen_NKA[unknown], theirs.seen_NKA[unknown], equal_nan=True)


def test_a_share_without_an_example_is_refused_by_name(pair: Pair, logits: NDArray[np.float32]) -> None:
    cell = _cells(pair)[0]._replace(share=0.03)
    log = _log(pair, changed=False).first(0)
    arriving = Arriving(log, logits[:0], _known(log, _DELAY))
    with pytest.raises(InvalidInputError, match=r"variant v, 3 % of the users, seed 1: no example is left; leave this"):
        run_cell(cell, log, Teaching(logits[:0]), arriving)


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
