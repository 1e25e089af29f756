"""What a variant's learner does not see: nothing of it moves a prediction, and plain models see it as before."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lab.study.arriving import Arriving
from lab.study.cell import Predictions, run_cell
from lab.study.grid import Grid, Variant
from lab.study.hidden_features import HiddenFeatures
from lab.study.keys import Keys
from lab.study.observed_learner import Teaching
from lab.study.plan import cells_of
from lab.study.study_log import StudyLog
from runtime.errors import ConfigurationError
from student.learn.bootstrap import DayZeroRows
from student.learn.prior_factors import PriorFactors
from tests.lab.study.conftest import Pair

HIDDEN = ["track", "listener:age", "user_id"]
"""A view, a dense feature and an id."""
ROWS = 200


def changed(pair: Pair) -> StudyLog:
    """The first examples, with other values of what is hidden."""
    places = [n for n, f in enumerate(pair.spec.features) if {f.name, f.view} & set(HIDDEN)]
    records = []
    for record in pair.log.records[:ROWS]:
        features = list(record.example.features)
        for place in places:
            features[place] = None
        records.append(record._replace(example=record.example.model_copy(update={"features": features})))
    return pair.log._replace(records=records)


def predicted(pair: Pair, log: StudyLog, logits: NDArray[np.float32], place: int = 0, **variant: Any) -> Predictions:
    """Of the learner, or at place 1 of the plain models, beside a learner of such a variant."""
    grid = Grid(seeds=1, baseline="v", windows=[0], variants=[Variant(name="v", **variant)])
    cell, logit_NT = cells_of(grid, pair.project, pair.spec)[place], logits[:ROWS]
    arriving = Arriving(log, logit_NT, cell.delay.known(log.event_times_ms))
    return run_cell(cell, log, Teaching(logit_NT, day_zero=rows(pair)), arriving)[1]


def rows(pair: Pair) -> DayZeroRows:
    """Of a bootstrap, as the log has them."""
    columns = pair.spec.columns_of([example.features for example in pair.log.examples[:ROWS]])
    logit_PT = np.zeros((ROWS, len(pair.project.teacher.tasks)), np.float32)
    logit_PT[::2] = 1
    return DayZeroRows(pair.spec.encode(columns), logit_PT)


def equal(ours: Predictions, theirs: Predictions) -> bool:
    return all(np.array_equal(a, b, equal_nan=True) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("hidden", [HIDDEN, []])
def test_what_is_hidden_moves_no_prediction(pair: Pair, logits: NDArray[np.float32], hidden: list[str]) -> None:
    variant = {"hidden": hidden, "tables": {"bootstrap": {"steps": 2}}}
    ours, theirs = (predicted(pair, log, logits, **variant) for log in (pair.log.first(ROWS), changed(pair)))
    assert equal(ours, theirs) == bool(hidden)


def test_plain_models_see_what_a_learner_does_not(pair: Pair, logits: NDArray[np.float32]) -> None:
    log = pair.log.first(ROWS)
    assert equal(predicted(pair, log, logits, place=1, hidden=HIDDEN), predicted(pair, log, logits, place=1))


def test_rows_of_a_bootstrap_lose_the_same_columns_as_the_log(pair: Pair) -> None:
    features, log = HiddenFeatures(pair.spec, HIDDEN), pair.log.first(ROWS)
    seen = features.of_log(log)
    of_log = seen.spec.encode(seen.spec.columns_of([example.features for example in seen.examples]))
    of_rows = features.of_rows(rows(pair)).features
    assert of_rows.dense_BD.tolist() == of_log.dense_BD.tolist()
    assert of_rows.categorical_BC.tolist() == of_log.categorical_BC.tolist()
    assert 0 < of_rows.dense_BD.shape[1] < rows(pair).features.dense_BD.shape[1]


@pytest.mark.parametrize("name", ["listener:shoe_size", "track:clip"])
def test_a_name_that_hides_nothing_is_refused(pair: Pair, name: str) -> None:
    grid = Grid(seeds=1, baseline="v", variants=[Variant(name="v", hidden=[name])])
    with pytest.raises(
        ConfigurationError, match=f"variant v: hidden: the student sees no feature and no view '{name}'"
    ):
        cells_of(grid, pair.project, pair.spec)


def test_priors_and_guard_of_a_variant_reach_its_learner(pair: Pair, logits: NDArray[np.float32]) -> None:
    """Without the guard the student answers alone, which leaves the control as it was."""
    log = pair.log.first(ROWS)
    plain, flat, alone = (
        predicted(pair, log, logits, **variant)
        for variant in ({}, {"priors": PriorFactors(user=0.0)}, {"guarded": False})
    )
    student, control = (np.s_[:, 0, arm] for arm in (0, 1))
    assert not np.array_equal(plain.seen_NKA[control], flat.seen_NKA[control])
    assert not np.array_equal(plain.seen_NKA[student], alone.seen_NKA[student])
    assert np.array_equal(plain.seen_NKA[control], alone.seen_NKA[control])


def test_each_ablation_is_kept_under_a_key_of_its_own(pair: Pair) -> None:
    variants = [
        Variant(name="v"),
        Variant(name="blind", hidden=["track"]),
        Variant(name="flat", priors=PriorFactors(user=0.0)),
        Variant(name="wide", priors=PriorFactors(user=4.0)),
        Variant(name="alone", guarded=False),
    ]
    keys = Keys(pair.log.first(20), pair.day_zero)
    cells = cells_of(Grid(seeds=1, baseline="v", variants=variants), pair.project, pair.spec)
    assert len({keys.result(cell) for cell in cells if not cell.is_plain}) == len(variants)
