"""Factors of priors: 0 switches a part of the posterior off, any other one widens or narrows it and nothing else."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from features.spec import Feature, hash_category
from student.learn.network.heads import Unit
from student.learn.posterior.posterior import Posterior
from student.learn.posterior.posterior_kernel import Rows
from student.learn.posterior.priors import Prior, prior_of
from student.learn.prior_factors import PriorFactors
from student.learn.setup import LearnerSetup
from student.versions.served_posterior import USER_KEY, USER_KNOWN, Columns, KnownOrder, columns_of
from tests.specs import spec_of

ROWS = 60
USERS, ITEMS, COLOURS = (
    [hash_category(column, f"{column}{n}") for n in range(5)] for column in ("user_id", "item_id", "c")
)


def setup_of(toy: Any, **factors: float) -> LearnerSetup:
    """Two profiles of `like`, one other dense column of an item, and a category."""
    number = {"role": "dense", "dtype": "float", "default": 0.0}
    category = {"role": "categorical", "dtype": "str", "default": None}
    features = (
        Feature(name="user_id", source="user_id", **category),
        Feature(name="item_id", source="item_id", **category),
        Feature(name="c", source="item", **category),
        Feature(name="size", source="item", **number),
        Feature(name="t:user", source="user", **number, profile_of="like"),
        Feature(name="t:item", source="item", **number, profile_of="like"),
    )
    setup: LearnerSetup = toy.setup(spec=spec_of(*features), priors=PriorFactors(**factors))
    return setup


def columns(setup: LearnerSetup) -> Columns:
    return columns_of(setup.spec, len(setup.tasks), [task.name for task in setup.teacher_tasks])


def learnt(setup: LearnerSetup) -> dict[str, Any]:
    """The state of a bootstrapped student after some rows in which everything varies."""
    random, own = np.random.default_rng(0), Posterior(setup, (True,))
    ids = np.array([[random.choice(part) for part in (USERS, ITEMS, COLOURS)] for _ in range(ROWS)], np.uint64)
    units = [Unit("binary", -1.0, 1.0), Unit("binary", 0.5, 1.0), Unit("regression", 3.5, 1.0)]
    own.start_taught(0, ids, units)
    labels = [random.integers(0, 2, ROWS), random.integers(0, 2, ROWS), random.integers(1, 6, ROWS)]
    rows = Rows(
        dense_MBD=random.standard_normal((1, ROWS, 3)).astype(np.float32),
        network_MBK=random.standard_normal((1, ROWS, 3)).astype(np.float32),
        label_BK=np.stack(labels, axis=1).astype(np.float32),
        logit_BT=random.standard_normal((ROWS, 3)).astype(np.float32),
        weight_B=np.ones(ROWS, np.float32),
    )
    own.learn(own.take(ids), rows)
    return own.tensors()


def part(name: str, state: dict[str, Any], columns: Columns) -> Any:
    """What the learner has added of a part: all 0 where it is off."""
    weight_KP, user_NKJ, id_NK = state["shared.weight_MKP"][0], state["users.mean_NMKJ"][:, 0], state["ids.mean_NMKJ"]
    dense = columns.dense.start
    weights = {
        "intercept": [0],
        "means": [1, 3, 5],
        "counts": [2, 4, 6],
        "dense": [dense],
        "profiles": [dense + 1, dense + 2],
        "mean_logits": list(range(columns.teacher.start, columns.teacher.stop)),
        "other_tasks": list(range(columns.effects.start, columns.effects.stop)),
        "network": [columns.network],
    }
    if name == "mean_logits":
        return np.concatenate([weight_KP[:, weights[name]].ravel(), user_NKJ[..., -1].ravel()])
    if name in weights:
        return weight_KP[:, weights[name]]
    if name in ("user", "trust", "taste"):
        return user_NKJ[..., {"user": slice(1), "trust": slice(-2, -1), "taste": slice(1, -2)}[name]]
    if name in ("item", "category"):
        return id_NK[np.isin(state["ids.key"], ITEMS if name == "item" else COLOURS)]
    if name == "blend":
        return state["shared.blend_MKL"][0] - np.eye(3, 4, 1)
    assert name == "expected"
    return state["shared.label_MK3"][0, :, 0] - ROWS


OFF = sorted(set(PriorFactors.model_fields) - {"residual", "drift", "pseudo_labels", "pseudo_logits"})


@pytest.mark.parametrize("name", OFF)
def test_a_factor_of_0_switches_a_part_off_and_leaves_the_others_on(toy: Any, name: str) -> None:
    setup = setup_of(toy, **{name: 0.0})
    state = learnt(setup)
    for other in OFF:
        added = np.abs(part(other, state, columns(setup))).max()
        assert (added == 0) == (other == name), other


def test_a_user_without_drift_is_never_less_sure_than_at_first(toy: Any) -> None:
    for factors, drifts in (({}, True), ({"drift": 0.0}, False), ({"user": 0.0}, False)):
        prior = prior_of(setup := setup_of(toy, **factors), columns(setup))
        assert prior.drift_K.any() == drifts


@pytest.mark.parametrize("name", ["item", "category"])
def test_items_and_categories_widen_apart_though_they_share_a_table(toy: Any, name: str) -> None:
    before, after = (prior_of(setup, columns(setup)) for setup in (setup_of(toy), setup_of(toy, **{name: 4.0})))
    widened = [variance / at_first for variance, at_first in zip(effects(after), effects(before), strict=True)]
    assert widened == pytest.approx([4.0, 1.0] if name == "item" else [1.0, 4.0])


def effects(prior: Prior) -> list[float]:
    """The variances of what a row takes of an item's effect and of a category's."""
    return [float(reach**2 * prior.id_K1[0, 0]) for reach in prior.reach_E[1:]]


def test_a_factor_multiplies_the_variances_of_its_part_and_keeps_the_means(toy: Any) -> None:
    before, after = (prior_of(setup, columns(setup)) for setup in (setup_of(toy), setup_of(toy, profiles=4.0)))
    place = columns(setup_of(toy)).dense.start
    ratio_KP = after.variance_KP / np.where(before.variance_KP > 0, before.variance_KP, 1)
    assert ratio_KP[:, place + 1 : place + 3].tolist() == [[4.0, 4.0]] * 3
    assert np.delete(ratio_KP, [place + 1, place + 2], axis=1).max() == 1
    assert after.mean_KP.tolist() == before.mean_KP.tolist()


def test_a_first_variance_of_a_regression_counts_as_so_many_errors(toy: Any) -> None:
    prior = prior_of(setup := setup_of(toy, residual=0.25), columns(setup))
    assert prior.residual_2.tolist() == [1.0, 0.75]
    with pytest.raises(ValidationError, match="greater than 0"):
        PriorFactors(residual=0.0)


def test_the_means_of_an_id_count_the_mean_of_all_as_so_many_labels_and_logits(toy: Any) -> None:
    """Of the only user with labels of 1, twice, beside two labels of 0: how far its mean is from that of all."""
    for factor in (0.25, 1.0, 4.0):
        setup = setup_of(toy, pseudo_labels=factor, pseudo_logits=2 * factor)
        own = Posterior(setup, (True,))
        ids = np.array([[USERS[n], ITEMS[n], COLOURS[0]] for n in (0, 0, 1, 2)], np.uint64)
        value_4 = np.array([1, 1, 0, 0], np.float32)
        columns_3 = np.tile(value_4[:, None], 3)
        own.learn(
            own.take(ids), Rows(*np.zeros((2, 1, 4, 3), np.float32), columns_3, columns_3, np.ones(4, np.float32))
        )
        served, order = own.served(0), KnownOrder(columns(setup))
        user = served[USER_KNOWN][1 + served[USER_KEY].tolist().index(USERS[0])]
        share = (2 + 5 * factor / 2) / (2 + 5 * factor)
        assert user[order.mean][0] == pytest.approx(np.log(share / (1 - share)))
        assert user[order.logit][0] == pytest.approx((2 - 2 * 0.5) / (2 + 2 * factor / 3))


@pytest.mark.parametrize("name", ["pseudo_labels", "pseudo_logits"])
def test_a_mean_of_nothing_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="greater than 0"):
        PriorFactors(**{name: 0.0})


def test_a_running_mean_logit_has_no_weight_where_the_entity_has_a_profile_of_that_task(toy: Any) -> None:
    """Both entities have one of `like`, the second teacher task; of the other two neither has."""
    setup = setup_of(toy)
    alone = dataclasses.replace(setup, spec=spec_of(*(f for f in setup.spec.features if f.name != "t:item")))
    like = [task.name for task in setup.teacher_tasks].index("like")
    for project, weighs in ((setup, [False, False]), (alone, [False, True])):
        own, prior = columns(project), prior_of(project, columns(project))
        for task in range(3):
            of_pair = slice(own.teacher.start + 2 * task, own.teacher.start + 2 * task + 2)
            expected = weighs if task == like else [True, True]
            assert (prior.variance_KP[:, of_pair] > 0).tolist() == [expected] * 3
            assert not prior.mean_KP[:, of_pair][:, [not each for each in expected]].any()
        of_like = [column == like for column in project.reference_columns]
        assert (prior.user_KJ[of_like, -1] > 0).all() == weighs[1]
