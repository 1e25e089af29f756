"""The posterior: what it knows of an id, what it forgets, and that it is no worse than what the formulas say."""

from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from features.spec import Feature, hash_category
from student.learn.network.heads import Unit
from student.learn.posterior import id_table
from student.learn.posterior.posterior import Posterior
from student.learn.posterior.posterior_kernel import Rows, look_up, score_rows, see
from student.learn.posterior.priors import prior_of
from student.versions.served_posterior import USER_KEY, USER_KNOWN, KnownOrder, columns_of
from tests.specs import spec_of

if TYPE_CHECKING:
    from student.learn.setup import LearnerSetup

NOBODY = -1


def rows(toy: Any, labels: list[list[float]], models: int = 1, logit: float = np.nan) -> Rows:
    """Rows in which the network says 0 and no dense column varies."""
    count = len(labels)
    return Rows(
        dense_MBD=np.zeros((models, count, 4), np.float32),
        network_MBK=np.zeros((models, count, 3), np.float32),
        label_BK=np.array(labels, np.float32),
        logit_BT=np.full((count, 3), logit, np.float32),
        weight_B=np.ones(count, np.float32),
    )


def ids(*pairs: tuple[int, str]) -> np.ndarray:
    return np.array([[hash_category("user_id", u), hash_category("item_id", i)] for u, i in pairs], np.uint64)


def posterior(toy: Any, sees_teacher: tuple[bool, ...] = (False,), **student: Any) -> Posterior:
    return Posterior(toy.setup(student=toy.student.model_copy(update=student)), sees_teacher)


def learn(own: Posterior, ids: np.ndarray, rows: Rows) -> None:
    own.learn(own.take(ids), rows)


def like(own: Posterior, toy: Any, user: int, item: str) -> float:
    """The logit of `like`, of the first model."""
    return float(own.predict(own.found(ids((user, item))), rows(toy, [[np.nan] * 3]))[0, 0, 0])


def test_no_example_waits_for_a_compiler(toy: Any) -> None:
    kernels: tuple[Any, ...] = (score_rows, look_up, see, id_table._take, id_table._find)
    own = posterior(toy)
    before = [len(kernel.signatures) for kernel in kernels]
    learn(own, ids((1, "a"), (2, "b"), (1, "b")), rows(toy, [[1, 0, 5], [0, 0, 1], [1, 1, 4]]))
    assert [len(kernel.signatures) for kernel in kernels] == before


def test_a_user_and_an_item_are_known_after_one_label(toy: Any) -> None:
    own = posterior(toy)
    learn(own, ids((1, "a"), (2, "b")), rows(toy, [[1, 0, 5], [0, 0, 1]]))
    stranger = like(own, toy, NOBODY, "z")
    assert like(own, toy, 1, "z") > stranger > like(own, toy, 2, "z")
    assert like(own, toy, NOBODY, "a") > stranger > like(own, toy, NOBODY, "b")


def test_labels_of_one_task_tell_of_another(toy: Any) -> None:
    own = posterior(toy)
    learn(own, ids((1, "a"), (2, "b")), rows(toy, [[np.nan, 1, 5], [np.nan, 0, 1]]))
    assert like(own, toy, 1, "a") > like(own, toy, NOBODY, "z") > like(own, toy, 2, "b")


def test_the_more_is_known_the_farther_from_one_half(toy: Any) -> None:
    own, logits = posterior(toy), []
    for _ in range(4):
        learn(own, ids((1, "a")), rows(toy, [[1, 1, 5]]))
        logits.append(like(own, toy, 1, "a"))
    assert logits == sorted(logits)
    assert logits[0] > 0


def test_an_id_that_left_is_exactly_one_that_never_came(toy: Any) -> None:
    own = posterior(toy, remembered_ids=1_000)
    learn(own, ids((1, "a")), rows(toy, [[1, 1, 5]], logit=2.0))
    others = [(10 + n, f"i{n}") for n in range(1_000)]
    learn(own, ids(*others), rows(toy, [[float(n % 2), 0, 3] for n in range(1_000)]))
    assert like(own, toy, 1, "a") == like(own, toy, NOBODY, "z")
    assert len(own.tensors()["users.key"]) == len(own.tensors()["ids.key"]) == 1_000


def test_an_id_that_leaves_within_a_batch_takes_nothing_along(toy: Any) -> None:
    """A thousand and one users in one batch: the last one has the place of the first, and begins with the prior."""
    many = [(10 + n, "a") for n in range(1_001)]
    labels = [[1.0, 1, 5]] + [[0.0, 0, 3]] * 1_000
    together, alone = posterior(toy, remembered_ids=1_000), posterior(toy, remembered_ids=1_000)
    learn(together, ids(*many), rows(toy, labels))
    for row, label in zip(many, labels, strict=True):
        learn(alone, ids(row), rows(toy, [label]))
    assert like(together, toy, 1_010, "a") == like(alone, toy, 1_010, "a")


def test_only_a_model_that_sees_the_teacher_is_moved_by_it(toy: Any) -> None:
    taught, untaught = posterior(toy, (True, False)), posterior(toy, (True, False))
    same = ids((1, "a"), (2, "b"))
    nothing = [[np.nan] * 3] * 2
    learn(taught, same, rows(toy, nothing, models=2)._replace(logit_BT=np.array([[0, 2, 0], [0, -2, 0]], np.float32)))
    learn(untaught, same, rows(toy, nothing, models=2))
    student, control = taught.predict(taught.found(same), rows(toy, nothing, models=2))[:, :, 0]
    assert student[0] > 0 > student[1]
    assert control.tolist() == untaught.predict(taught.found(same), rows(toy, nothing, models=2))[1, :, 0].tolist()


def test_the_level_follows_the_labels_of_the_last_thousands_however_many_came_before(toy: Any) -> None:
    """A fifth of the labels are 1, then two fifths: of users and items that come once and tell nothing else."""
    own = posterior(toy)
    before, after = ([[float(n % 5 < ones), 0, 3] for n in range(5_000)] for ones in (1, 2))
    strangers = iter(range(30_000))
    for labels in (before, before, before, before, after):
        learn(own, ids(*((n, f"i{n}") for n in islice(strangers, len(labels)))), rows(toy, labels))
    share = 1 / (1 + np.exp(-like(own, toy, NOBODY, "z")))
    assert share == pytest.approx(0.4, abs=0.04)


def test_a_regression_follows_its_labels_in_their_unit(toy: Any) -> None:
    own, random = posterior(toy), np.random.default_rng(0)
    for _ in range(200):
        user = int(random.integers(5))
        learn(own, ids((user, "a")), rows(toy, [[np.nan, np.nan, 1000.0 * user + random.normal()]]))
    rating_B = [own.predict(own.found(ids((user, "a"))), rows(toy, [[np.nan] * 3]))[0, 0, 2] for user in range(5)]
    assert rating_B == pytest.approx([0, 1000, 2000, 3000, 4000], abs=250)


def test_a_project_without_ids_learns_from_its_columns_alone(toy: Any) -> None:
    dense = tuple(f for f in toy.spec.features if f.role != "categorical")
    setup: LearnerSetup = toy.setup(spec=spec_of(*dense))
    own = Posterior(setup, (False,))
    no_ids = np.zeros((2, 0), np.uint64)
    learn(own, no_ids, rows(toy, [[1, 1, 5], [1, 1, 4]]))
    assert own.predict(own.found(no_ids), rows(toy, [[np.nan] * 3] * 2))[0, 0, 0] > 0
    assert len(own.tensors()["users.key"]) == 0


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_ten_thousand_equal_labels_leave_everything_finite(toy: Any, label: float) -> None:
    own = posterior(toy)
    for _ in range(10):
        learn(own, ids(*[(1, "a")] * 1_000), rows(toy, [[label, label, 5 * label]] * 1_000))
    assert all(np.isfinite(tensor).all() for tensor in own.tensors().values())
    assert (like(own, toy, 1, "a") > 0) == (label > 0)


def test_a_category_is_embedded_from_its_tenth_sighting_on(toy: Any) -> None:
    own, both = posterior(toy), ids((1, "a"))
    for seen in range(12):
        expected = both if seen >= 10 else np.zeros_like(both)
        assert own.admitted(both, own.found(both), taught=False).tolist() == expected.tolist()
        learn(own, both, rows(toy, [[1, 1, 5]]))


def test_rows_of_a_bootstrap_count_as_sightings_for_its_own_model_alone(toy: Any) -> None:
    own, both = posterior(toy, (True, False)), ids((1, "a"))
    own.start_taught(
        0, ids(*[(1, "a")] * 10), [Unit("binary", -1.0, 1.0), Unit("binary", 0.0, 1.0), Unit("regression", 3.5, 1.0)]
    )
    assert own.admitted(both, own.found(both), taught=True).tolist() == both.tolist()
    assert not own.admitted(both, own.found(both), taught=False).any()


def test_a_bootstrapped_model_begins_at_the_level_that_its_network_expects(toy: Any) -> None:
    own = posterior(toy, (True, False))
    own.start_taught(
        0, ids((1, "a")), [Unit("binary", -1.0, 1.0), Unit("binary", 0.0, 1.0), Unit("regression", 3.5, 1.0)]
    )
    says = np.array([[[-1.0, 0.0, 3.5]]] * 2, np.float32)
    student, control = own.predict(
        own.found(ids((1, "a"))), rows(toy, [[np.nan] * 3], models=2)._replace(network_MBK=says)
    )[:, 0]
    assert -1.1 < student[0] < -0.7
    assert student[2] == pytest.approx(3.5, abs=0.01)
    assert control[2] != pytest.approx(3.5, abs=0.01)


def test_the_means_of_an_id_count_the_mean_of_all_as_five_labels_and_a_third_of_a_logit(toy: Any) -> None:
    """Of the only user with labels of 1, twice, beside two labels of 0: how far its mean is from that of all."""
    own, value_4 = posterior(toy, (True,)), np.array([1, 1, 0, 0], np.float32)
    columns_43 = np.tile(value_4[:, None], 3)
    four = rows(toy, columns_43.tolist())._replace(logit_BT=columns_43)
    learn(own, ids((0, "a"), (0, "a"), (1, "b"), (2, "c")), four)
    served, order = own.served(0), KnownOrder(own.columns)
    user = served[USER_KNOWN][1 + served[USER_KEY].tolist().index(hash_category("user_id", 0))]
    share = (2 + 5 / 2) / (2 + 5)
    assert user[order.mean][0] == pytest.approx(np.log(share / (1 - share)))
    assert user[order.logit][0] == pytest.approx((2 - 2 * 0.5) / (2 + 1 / 3))


def test_a_running_mean_logit_has_no_weight_where_the_entity_has_a_profile_of_that_task(toy: Any) -> None:
    """Both entities have one of `like`, the second teacher task; of the other two neither has."""
    user, item = (
        Feature(name=f"t:{of}", source=of, role="dense", dtype="float", default=0.0, profile_of="like")
        for of in ("user", "item")
    )
    names = [task.name for task in toy.teacher_tasks]
    for profiles, weighs in (((user, item), [False, False]), ((user,), [False, True])):
        setup: LearnerSetup = toy.setup(spec=spec_of(*toy.spec.features, *profiles))
        own = columns_of(setup.spec, len(setup.tasks), names)
        prior = prior_of(setup, own)
        for task, name in enumerate(names):
            of_pair = slice(own.teacher.start + 2 * task, own.teacher.start + 2 * task + 2)
            expected = weighs if name == "like" else [True, True]
            assert (prior.variance_KP[:, of_pair] > 0).tolist() == [expected] * 3
            assert not prior.mean_KP[:, of_pair][:, [not each for each in expected]].any()
        of_like = [column == names.index("like") for column in setup.reference_columns]
        assert (prior.user_KJ[of_like, -1] > 0).all() == weighs[1]
