"""The study's direct arm: a served head that learns from the teacher, and all that stays as it is."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from features.spec import FeatureBatch
from lab.study.arriving import Arriving
from lab.study.direct import direct_faults
from lab.study.grid import Grid, Variant
from lab.study.keys import Keys
from lab.study.observed_learner import ObservedLearner, Teaching
from lab.study.plan import cells_of
from lab.study.study_log import StudyLog
from runtime.errors import ConfigurationError
from stream.events import Example
from student.learn.config import DistillationConfig
from student.learn.day_zero import least_explained
from student.learn.learner import Learner
from teacher_cache.cache.unshown import UnshownRows
from tests.lab.study.conftest import Pair
from tests.student.conftest import Toy

TOY = Toy()
ROWS = 200


def distilled(*names: str) -> tuple[DistillationConfig, ...]:
    return tuple(DistillationConfig(teacher_task=name, student_task=name) for name in names)


def learner(direct: Sequence[str] = ("like",), heads: Sequence[str] = ("like",)) -> ObservedLearner:
    teaching = Teaching(np.empty((0, 3), np.float32))
    setup = TOY.setup(distillation=distilled(*heads))
    log = StudyLog(TOY.spec, [])
    return ObservedLearner(setup, log, teaching, Arriving(log, teaching.logit_NT, np.empty(0, np.intp)), direct)


def weights(of: Learner, arm: str = "student") -> Mapping[str, NDArray[Any]]:
    prefix = f"{arm}/weights/"
    return {name.removeprefix(prefix): t.copy() for name, t in of.tensors().items() if name.startswith(prefix)}


def unlabelled(batch: list[Example]) -> list[Example]:
    return [example.model_copy(update={"labels": dict.fromkeys(example.labels)}) for example in batch]


def test_the_teacher_moves_the_served_head_itself() -> None:
    """No row has a label: the served head learns all the same, and neither its auxiliary head nor the control does."""
    direct = learner()
    direct.learn(unlabelled(TOY.batches(1)[0]), np.array([[np.nan, 3.0, np.nan]] * 8, np.float32))
    assert weights(direct)["head.like.bias"][0] > 0
    assert not weights(direct)["teacher_head.like.bias"].any()
    assert not weights(direct, "control")["head.like.bias"].any()


def test_unshown_rows_teach_no_served_head() -> None:
    others = [TOY.example(n) for n in range(100, 140)]
    unshown = UnshownRows([example.features for example in others], TOY.logits(others, misses=False))
    (batch,) = TOY.batches(1)
    with_unshown, without = learner(), learner()
    with_unshown.learn(batch, TOY.logits(batch), unshown)
    without.learn(batch, TOY.logits(batch))
    for name, tensor in weights(without).items():
        assert weights(with_unshown)[name] == pytest.approx(tensor, abs=1e-6), name


def test_a_learner_without_direct_tasks_is_the_streams_own_bit_for_bit() -> None:
    own, study = Learner(TOY.setup(distillation=distilled("like", "rating"))), learner((), ("like", "rating"))
    for of in (own, study):
        TOY.learnt(of, TOY.batches(5))
    assert {n: t.tobytes() for n, t in weights(own).items()} == {n: t.tobytes() for n, t in weights(study).items()}


def features(first: int = 0) -> FeatureBatch:
    batch: FeatureBatch = TOY.spec.encode(TOY.spec.columns_of([TOY.example(first + n).features for n in range(ROWS)]))
    return batch


def teacher_logits(batch: FeatureBatch) -> NDArray[np.float32]:
    like_P = 3 * (batch.dense_BD[:, -1] - 0.5) - 2
    return np.stack([np.zeros_like(like_P), like_P, 4 + like_P / 4], axis=1).astype(np.float32)


def test_a_served_head_that_was_bootstrapped_itself_starts_with_what_it_has_learnt() -> None:
    direct, unseen = learner(), features(first=5000)
    assert direct.bootstrap(features(), teacher_logits(features()), 300)["like"] > 0.9
    score_P, teacher_P = direct.score(unseen)[:, 0], teacher_logits(unseen)[:, 1]
    assert np.corrcoef(score_P, teacher_P)[0, 1] > 0.9
    assert score_P.mean() == pytest.approx(teacher_P.mean(), rel=0.4)  # nearer to 0: nobody is known


def test_a_served_head_that_has_not_learnt_its_teacher_starts_at_the_teachers_mean() -> None:
    direct, logit_PT = learner(("like", "rating"), ("like", "rating")), teacher_logits(features())
    logit_PT[:, 1] = np.random.default_rng(7).standard_normal(ROWS)
    explained = direct.bootstrap(features(), logit_PT, 300)
    assert explained["like"] < least_explained(ROWS) < explained["rating"]
    score_PK = direct.score(features(first=5000))
    mean = (1 / (1 + np.exp(-logit_PT[:, 1]))).mean()
    assert score_PK[:, 0] == pytest.approx(np.log(mean / (1 - mean)), abs=0.03)
    assert score_PK[:, 2].std() > 0.1


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"teacher_task": "finish"}, "direct: no distilled teacher task 'like'; there are finish"),
    ],
)
def test_a_task_that_no_served_head_can_learn_is_named_with_the_reason(changes: dict[str, Any], fault: str) -> None:
    assert list(direct_faults(["like"], [distilled("like")[0].model_copy(update=changes)])) == [fault]


def test_a_direct_variant_that_does_not_fit_is_named_before_the_first_cell_runs(pair: Pair) -> None:
    variant = Variant(name="v", direct=["follow", "like"])
    with pytest.raises(ConfigurationError) as caught:
        cells_of(Grid(baseline="v", variants=[variant]), pair.project, pair.spec)
    assert caught.value.faults == (
        "variant v: direct: no distilled teacher task 'follow'; there are play, watch",
        "variant v: direct: no distilled teacher task 'like'; there are play, watch",
    )


def test_a_direct_variant_has_a_key_of_its_own(pair: Pair) -> None:
    variants = [Variant(name="plain"), Variant(name="direct", direct=["play"])]
    cells = cells_of(Grid(seeds=1, baseline="plain", variants=variants), pair.project, pair.spec)
    keys = Keys(pair.log.first(20), pair.day_zero)
    assert len({keys.result(cell) for cell in cells if not cell.is_plain}) == 2
