"""The learner: what it must not see, must not lose, and must repeat bit for bit."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtime.errors import InvalidInputError
from stream.events import Example, Sampled
from stream.join.sampling import Sampling, SamplingConfig
from student.learn.config import DistillationConfig
from student.learn.learner import Learner
from student.versions.manifest import Draft
from student.versions.numpy_model import NumpyStudent
from student.versions.registry import Registry

Equal = Callable[[dict[str, Any], dict[str, Any]], None]


def snapshot(learner: Learner) -> dict[str, Any]:
    return {name: tensor.copy() for name, tensor in learner.tensors().items()}


def shared(learner: Learner, arm: str) -> dict[str, Any]:
    """The weights and optimizer rows that both arms have, of one arm."""
    served = ("weights/embedding", "weights/trunk", "weights/tower", "weights/head", "adagrad")
    return {
        n.removeprefix(f"{arm}/"): t
        for n, t in snapshot(learner).items()
        if n.startswith(tuple(f"{arm}/{s}" for s in served))
    }


def test_both_arms_start_with_the_same_shared_weights(toy: Any, equal: Equal) -> None:
    learner = Learner(toy.setup())
    equal(shared(learner, "student"), shared(learner, "control"))


def test_two_runs_over_one_log_give_the_same_bits(toy: Any, equal: Equal) -> None:
    first, second = (toy.learnt(Learner(toy.setup()), toy.batches(12)) for _ in range(2))
    equal(first.tensors(), second.tensors())
    assert first.state() == second.state()


def test_save_load_and_continue_equals_never_having_stopped(toy: Any, equal: Equal, tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    whole = toy.learnt(Learner(toy.setup()), toy.batches(20))
    half = toy.learnt(Learner(toy.setup()), toy.batches(11))
    version = registry.publish(draft(half), half.served_tensors(), half.tensors(), half.state()).version
    _, tensors, state = registry.load_learner(version)
    resumed = Learner(toy.setup())
    resumed.restore(tensors, state)
    equal(resumed.tensors(), half.tensors())
    toy.learnt(resumed, toy.batches(9, first=88))
    equal(resumed.tensors(), whole.tensors())
    assert resumed.state() == whole.state()
    assert resumed.evaluation.whole() == whole.evaluation.whole()
    assert resumed.evaluation.recent() == whole.evaluation.recent()


def test_an_untouched_learner_is_saved_and_restored(toy: Any, equal: Equal, tmp_path: Path) -> None:
    new = Learner(toy.setup())
    registry = Registry(tmp_path)
    registry.publish(draft(new), new.served_tensors(), new.tensors(), new.state())
    _, tensors, state = registry.load_learner("v000001")
    restored = Learner(toy.setup())
    restored.restore(tensors, state)
    equal(toy.learnt(restored, toy.batches(3)).tensors(), toy.learnt(new, toy.batches(3)).tensors())


def test_learning_leaves_its_inputs_as_they_were(toy: Any) -> None:
    (batch,) = toy.batches(1)
    logit_BT = toy.logits(batch)
    before = copy.deepcopy(batch), logit_BT.copy()
    Learner(toy.setup()).learn(batch, logit_BT)
    assert batch == before[0]
    assert logit_BT.tobytes() == before[1].tobytes()


def test_a_cache_miss_trains_on_the_labels_alone(toy: Any, equal: Equal) -> None:
    learner = Learner(toy.setup())
    for batch in toy.batches(10):
        learner.learn(batch, np.full((8, 3), np.nan, np.float32))
    equal(shared(learner, "student"), shared(learner, "control"))
    assert all(np.isfinite(tensor).all() for name, tensor in learner.tensors().items() if name.startswith("student/"))


def test_logits_move_the_student_and_never_the_control(toy: Any, equal: Equal) -> None:
    with_logits = toy.learnt(Learner(toy.setup()), toy.batches(10))
    without = Learner(toy.setup())
    for batch in toy.batches(10):
        without.learn(batch, np.full((8, 3), np.nan, np.float32))
    equal(shared(with_logits, "control"), shared(without, "control"))
    moved = shared(with_logits, "student")["weights/trunk.0.weight"]
    assert not np.array_equal(moved, shared(without, "student")["weights/trunk.0.weight"])


def test_the_teacher_moves_no_served_head_in_the_first_step(toy: Any) -> None:
    """The gradient of a served head comes from labels alone: from equal trunks both arms' heads take one equal step."""
    learner = toy.learnt(Learner(toy.setup()), toy.batches(1, size=1, first=2))
    tensors = learner.tensors()
    for name in ("head.like.weight", "head.like.bias", "teacher_head.like.bias"):
        assert np.any(tensors[f"student/weights/{name}"]), name
    for name in ("head.like.weight", "head.like.bias"):
        assert tensors[f"student/weights/{name}"].tobytes() == tensors[f"control/weights/{name}"].tobytes()


def test_a_weight_of_0_leaves_the_student_as_its_control(toy: Any, equal: Equal) -> None:
    off = tuple(d.model_copy(update={"weight": 0.0}) for d in toy.distillation)
    learner = toy.learnt(Learner(toy.setup(distillation=off)), toy.batches(10))
    equal(shared(learner, "student"), shared(learner, "control"))


def test_missing_labels_are_masked(toy: Any) -> None:
    unlabelled = [e.model_copy(update={"labels": dict.fromkeys(e.labels)}) for e in toy.batches(1)[0]]
    learner = toy.learnt(Learner(toy.setup()), toy.batches(2))
    before = snapshot(learner)
    learner.learn(unlabelled, np.full((8, 3), np.nan, np.float32))
    assert learner.evaluation.whole()["like"]["student"].count == 16
    assert learner.tensors()["student/running/labels.count"].tolist() == before["student/running/labels.count"].tolist()
    assert all(np.isfinite(t).all() for n, t in learner.tensors().items() if n.startswith(("student/", "control/")))


def test_predictions_are_made_before_learning(toy: Any) -> None:
    """Whatever its label is, the first example is predicted by the untrained model."""
    learner = toy.learnt(Learner(toy.setup()), toy.batches(1, size=1))
    for arm in ("student", "control", "item_mean"):
        assert learner.evaluation.whole()["like"][arm].log_loss == pytest.approx(np.log(2))


def test_a_prediction_knows_the_rows_before_its_own_and_not_its_own(toy: Any) -> None:
    def predicted(*changed: int) -> dict[str, float]:
        (batch,) = toy.batches(1)
        for n in changed:
            labels = {task: None if label is None else 5 - label for task, label in batch[n].labels.items()}
            batch[n] = batch[n].model_copy(update={"labels": labels | {"like": 1 - batch[n].labels["like"]}})
        learner = Learner(toy.setup())
        learner.learn(batch, toy.logits(batch))
        return {arm: m.prediction_mean for arm, m in learner.evaluation.whole()["like"].items() if arm != "item_mean"}

    assert predicted(7) == predicted()
    assert predicted(3)["student"] != predicted()["student"]
    assert predicted(3)["control"] != predicted()["control"]


def test_the_teacher_is_counted_only_where_it_has_a_logit(toy: Any) -> None:
    learner = toy.learnt(Learner(toy.setup()), toy.batches(4))
    batches = toy.batches(4)
    hits = sum(int(np.isfinite(toy.logits(batch)[:, 1]).sum()) for batch in batches)
    whole = learner.evaluation.whole()
    assert whole["like"]["teacher"].count == hits < whole["like"]["student"].count == 32
    assert "teacher" not in whole["hidden"]


def test_the_served_tensors_score_as_the_learner_predicts(toy: Any, tmp_path: Path) -> None:
    learner = toy.learnt(Learner(toy.setup()), toy.batches(15))
    registry = Registry(tmp_path)
    registry.publish(draft(learner), learner.served_tensors(), learner.tensors(), learner.state())
    manifest, tensors = registry.load_model("v000001")
    features = toy.spec.encode(toy.spec.columns_of([e.features for e in toy.batches(1, first=500)[0]]))
    scores = NumpyStudent(manifest, tensors).score(features)
    assert list(scores) == ["like", "rating"]
    expected_BK = learner.score(features)
    assert scores["like"] == pytest.approx(1 / (1 + np.exp(-expected_BK[:, 0])), abs=1e-6)
    assert scores["rating"] == pytest.approx(expected_BK[:, 2], abs=1e-5)


def test_an_untrained_student_is_neutral(toy: Any) -> None:
    features = toy.spec.encode(toy.spec.columns_of([e.features for e in toy.batches(1)[0]]))
    assert not Learner(toy.setup()).score(features).any()


def test_unseen_and_missing_ids_have_a_row_and_a_finite_score(toy: Any) -> None:
    learner = toy.learnt(Learner(toy.setup()), toy.batches(5))
    rows = [[99, 10**15, None, "never seen", 0.5], [None, None, None, None, None]]
    score_BK = learner.score(toy.spec.encode(toy.spec.columns_of(rows)))
    assert np.isfinite(score_BK).all()
    assert score_BK[0, 0] != score_BK[1, 0]


def test_memory_is_bounded(toy: Any) -> None:
    learner = toy.learnt(Learner(toy.setup()), toy.batches(20))
    sizes = {name: tensor.nbytes for name, tensor in learner.tensors().items()}
    toy.learnt(learner, toy.batches(30, first=160))
    after = {name: tensor.nbytes for name, tensor in learner.tensors().items()}
    items = {name for name in after if name.startswith(("item_mean/", "posterior/users", "posterior/ids"))}
    assert {name: after[name] for name in after if name not in items} == {n: sizes[n] for n in sizes if n not in items}
    assert len(learner.tensors()["reservoir/label_BK"]) == 50


def test_an_example_of_another_feature_spec_is_refused(toy: Any) -> None:
    (batch,) = toy.batches(1)
    foreign = [*batch[:-1], batch[-1].model_copy(update={"spec_id": "0123456789abcdef"})]
    learner = Learner(toy.setup())
    with pytest.raises(
        InvalidInputError, match=rf"example m7: spec_id must be {toy.spec.spec_id}, got 0123456789abcdef"
    ):
        learner.learn(foreign, toy.logits(foreign))
    assert learner.examples == 0


def test_an_example_without_a_tasks_label_is_refused(toy: Any) -> None:
    example = toy.example(1).model_copy(update={"labels": {"like": 1.0}})
    with pytest.raises(InvalidInputError, match="labels must have hidden, rating, got"):
        Learner(toy.setup()).learn([example], toy.logits([example]))


def test_the_state_is_json(toy: Any) -> None:
    state = toy.learnt(Learner(toy.setup()), toy.batches(2)).state()
    assert json.loads(json.dumps(state)) == state


def test_a_student_learns_from_a_teacher_that_knows_the_labels_that_it_lacks(toy: Any) -> None:
    """Likes follow the feature `mean`; one row in four has its label."""

    def labelled(n: int, example: Example) -> Example:
        like = float(example.features[4] > 0.5) if n % 4 == 0 else None
        return example.model_copy(update={"labels": {**example.labels, "like": like}})

    learner = Learner(
        toy.setup(distillation=(DistillationConfig(teacher_task="finish", student_task="like", weight=2.0),))
    )
    for batch in toy.batches(60):
        logit_BT = np.array([[4.0 if e.features[4] > 0.5 else -4.0, np.nan, np.nan] for e in batch], np.float32)
        learner.learn([labelled(n, example) for n, example in enumerate(batch)], logit_BT)
    whole = learner.evaluation.whole()["like"]
    assert whole["student"].count == whole["control"].count == 120
    assert whole["student"].auc > whole["control"].auc + 0.01
    assert whole["student"].log_loss < whole["control"].log_loss - 0.02


def only_like(**changes: Any) -> tuple[DistillationConfig, ...]:
    return (DistillationConfig(teacher_task="like", student_task="like", **changes),)


def learnt_from(learner: Learner, toy: Any, batches: int, logit: Callable[[Any], float]) -> Learner:
    """Learns with a teacher of `like` that says `logit(example)`."""
    for batch in toy.batches(batches):
        learner.learn(batch, np.array([[np.nan, logit(e), np.nan] for e in batch], np.float32))
    return learner


def test_an_auxiliary_head_is_at_rest_when_the_teacher_is_constant(toy: Any) -> None:
    """Its target, in its own unit, is 0: the soft label is taken once, from the logit."""
    learner = learnt_from(Learner(toy.setup(distillation=only_like())), toy, 20, lambda _: 2.0)
    assert abs(learner.tensors()["student/weights/teacher_head.like.bias"][0]) < 0.2


def test_the_distillation_loss_touches_no_served_head(toy: Any) -> None:
    learner = Learner(toy.setup(distillation=only_like()))
    for batch in toy.batches(2, size=1):  # the first two steps
        learner.learn(batch, np.array([[np.nan, 3.0 * batch[0].labels["like"], np.nan]], np.float32))
    tensors = learner.tensors()
    for name in ("weight", "bias"):
        student, control = (tensors[f"{arm}/weights/head.like.{name}"] for arm in ("student", "control"))
        assert student.tobytes() == control.tobytes()
    assert tensors["student/weights/teacher_head.like.weight"].any()


def test_a_permuted_teacher_stays_bounded(toy: Any) -> None:
    """Logits that say nothing, at ten times the usual weight: served weights and log loss stay near the control's."""
    random = np.random.default_rng(1)
    setup = toy.setup(distillation=only_like(weight=10.0))
    learner = learnt_from(Learner(setup), toy, 100, lambda _: float(random.normal(scale=4)))
    tensors = learner.tensors()
    student, control = (np.linalg.norm(tensors[f"{arm}/weights/head.like.weight"]) for arm in ("student", "control"))
    assert student < 3 * control + 1
    losses = {arm: metrics.log_loss for arm, metrics in learner.evaluation.recent()["like"].items()}
    assert losses["student"] < losses["control"] + 0.1


def draft(learner: Learner) -> Draft:
    return Draft(
        examples=learner.examples,
        offsets={"0": learner.examples},
        spec=learner.setup.spec,
        tasks=list(learner.setup.tasks),
        student=learner.setup.student,
        teacher_tasks=[task.name for task in learner.setup.teacher_tasks],
        teacher_version="t1",
        metrics=learner.evaluation.whole(),
    )


def test_a_version_of_an_earlier_release_goes_on_as_if_every_example_had_stood_for_one(toy: Any, equal: Equal) -> None:
    """It has saved no weights. An example that comes later may stand for several."""
    whole = toy.learnt(Learner(toy.setup()), [toy.batches(1, size=83)[0]])  # a step is open
    saved = {name: tensor.copy() for name, tensor in whole.tensors().items() if "weight_B1" not in name}
    assert len(saved) < len(whole.tensors())
    del saved["evaluation/weight"]
    resumed = Learner(toy.setup())
    resumed.restore(saved, json.loads(json.dumps(whole.state())))
    equal(resumed.tensors(), whole.tensors())
    later = [[e.model_copy(update={"weight": 5}) for e in batch] for batch in toy.batches(3, first=83)]
    equal(toy.learnt(resumed, later).tensors(), toy.learnt(whole, later).tensors())


def test_a_weight_moves_every_part_that_counts_labels(toy: Any) -> None:
    """And none of those that see no label: columns, bounds, the teacher's means, the ids that were seen."""
    batches = toy.batches(6)
    plain, weighed = Learner(toy.setup()), Learner(toy.setup())
    toy.learnt(plain, batches)
    toy.learnt(weighed, [[e.model_copy(update={"weight": 3 - 2 * int(e.labels["like"])}) for e in b] for b in batches])
    same = {name for name, tensor in plain.tensors().items() if np.array_equal(tensor, weighed.tensors()[name])}
    for name in ("student/running/labels.mean", "control/running/labels.count", "posterior/shared.label_MK3"):
        assert name not in same
    for name in ("posterior/shared.weight_MKP", "posterior/users.label_NK2", "guard/labels", "item_mean/total"):
        assert name not in same
    for name in ("student/weights/head.like.bias", "evaluation/tally.sum", "reservoir/weight_B1"):
        assert name not in same
    for name in ("student/running/normalizer.mean", "student/running/soft_labels.mean", "posterior/shared.logit_T3"):
        assert name in same


def test_the_probabilities_of_a_learner_of_sampled_negatives_are_those_of_the_whole_log(toy: Any) -> None:
    """Of 1,500 examples two thirds are negatives, of which a fifth is learnt."""
    log = [toy.example(number) for number in range(1_500)]
    sampling = Sampling(SamplingConfig(one_negative_of=5), toy.tasks)
    kept = [e for one in log if (e := sampling.kept(one, is_alone=True))]
    assert 600 < len(kept) < 800
    means = []
    for part in (log, kept, [e.model_copy(update={"weight": 1}) for e in kept]):
        learner = toy.learnt(Learner(toy.setup()), [part[at : at + 8] for at in range(0, len(part) - 8, 8)])
        features = toy.spec.encode(toy.spec.columns_of([e.features for e in log]))
        means.append(float((1 / (1 + np.exp(-learner.score(features)[:, 0]))).mean()))
    share = float(np.mean([e.labels["like"] for e in log]))
    assert means[0] == pytest.approx(share, rel=0.03)
    assert means[1] == pytest.approx(share, rel=0.1)
    assert means[2] > 1.3 * share  # what weights are for


def test_an_auc_against_drawn_negatives_has_a_name_of_its_own_and_a_restart_keeps_it(toy: Any) -> None:
    """And nothing else changes: what is learnt of such a row is what is learnt of any other."""
    (batch,) = toy.batches(1, size=80)
    sampled = Sampled(of="i0", recipe="uniform", log_odds=None)
    drawn = [e.model_copy(update={"sampled": None if e.labels["like"] else sampled}) for e in batch]
    plain, learner = (toy.learnt(Learner(toy.setup()), [part]) for part in (batch, drawn))
    before, after = plain.evaluation.whole()["like"]["student"], learner.evaluation.whole()["like"]["student"]
    assert before.auc is not None
    assert before.auc_against_drawn is None
    assert (after.auc, after.gauc) == (None, None)
    assert (after.auc_against_drawn, after.gauc_against_drawn) == (before.auc, before.gauc)
    assert after.log_loss == before.log_loss
    resumed = Learner(toy.setup())
    resumed.restore(learner.tensors(), json.loads(json.dumps(learner.state())))
    slices = resumed.evaluation.slices()
    assert all(metrics.auc is None for tasks in slices.values() for metrics in tasks["like"].values())
