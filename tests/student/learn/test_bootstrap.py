"""Bootstrap: what a student knows before its first label, and what its control does not."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from features.spec import FeatureBatch, Value
from runtime.errors import InvalidInputError
from student.learn.bootstrap import run_bootstrap, sample_rows
from student.learn.config import BootstrapConfig, DistillationConfig
from student.learn.learner import Learner
from student.learn.network.arm import least_explained
from student.versions.numpy_model import NumpyStudent
from student.versions.registry import Registry
from teacher_cache.config import TeacherConfig
from teacher_cache.domain.request_scorer import ScoredRows

ROWS = 200


def features(toy: Any, first: int = 0, count: int = ROWS) -> FeatureBatch:
    batch: FeatureBatch = toy.spec.encode(toy.spec.columns_of([toy.example(first + n).features for n in range(count)]))
    return batch


def teacher_logits(batch: FeatureBatch) -> NDArray[np.float32]:
    """A teacher whose like follows the feature `mean`, rarely, and whose rating is around 4."""
    like_P = 3 * (batch.dense_BD[:, -1] - 0.5) - 2
    return np.stack([np.zeros_like(like_P), like_P, 4 + like_P / 4], axis=1).astype(np.float32)


def bootstrapped(toy: Any, steps: int = 300, **changes: Any) -> Learner:
    learner = Learner(toy.setup(**changes))
    batch = features(toy)
    learner.bootstrap(batch, teacher_logits(batch), steps)
    return learner


def test_served_heads_start_as_the_teacher_sees_rows_it_never_scored(toy: Any) -> None:
    learner = bootstrapped(toy)
    batch = features(toy, first=5000)
    score_BK, teacher_BT = learner.score(batch), teacher_logits(batch)
    assert np.corrcoef(score_BK[:, 0], teacher_BT[:, 1])[0, 1] > 0.9
    assert score_BK[:, 0].mean() == pytest.approx(teacher_BT[:, 1].mean(), rel=0.4)  # nearer to 0: nobody is known
    assert score_BK[:, 2].mean() == pytest.approx(teacher_BT[:, 2].mean(), abs=0.2)


def test_held_out_rows_show_how_much_of_the_teacher_the_student_has_learnt(toy: Any) -> None:
    learner, batch = Learner(toy.setup()), features(toy)
    logit_PT = teacher_logits(batch)
    unseen = slice(-ROWS // 10, None)
    shown = logit_PT.copy()
    shown[unseen, 1] = logit_PT[unseen, 1][::-1]  # what it reports is of rows that it does not learn
    assert learner.bootstrap(batch, logit_PT, 300)["like"] > 0.9
    assert Learner(toy.setup()).bootstrap(batch, shown, 300)["like"] < 0.5


def test_a_teacher_whose_logits_belong_to_other_rows_teaches_nothing(toy: Any, equal: Any) -> None:
    learner, batch = Learner(toy.setup()), features(toy, count=2_000)
    logit_PT = np.random.default_rng(7).permutation(teacher_logits(batch))
    explained = learner.bootstrap(batch, logit_PT, 300)
    assert max(explained.values()) < 0.01
    assert learner.bootstrapped_rows == 0
    equal(learner.tensors(), Learner(toy.setup()).tensors())


@pytest.mark.parametrize("seed", range(5))
def test_noise_is_not_learnt_however_few_rows_there_are(toy: Any, seed: int) -> None:
    learner, batch = Learner(toy.setup()), features(toy, first=1000 * seed, count=100)
    learner.bootstrap(batch, np.random.default_rng(seed).standard_normal((100, 3)).astype(np.float32), 100)
    assert learner.bootstrapped_rows == 0


def test_the_fewer_rows_are_held_out_the_more_of_the_teacher_they_must_show() -> None:
    assert [least_explained(rows) for rows in (100, 200, 1_000, 9_000, 50_000)] == [0.9, 0.45, 0.09, 0.01, 0.01]


def test_a_served_head_starts_at_the_teachers_mean_when_its_twin_is_not_learnt(toy: Any) -> None:
    learner, batch = Learner(toy.setup()), features(toy)
    logit_PT = teacher_logits(batch)
    logit_PT[:, 1] = np.random.default_rng(7).standard_normal(ROWS)
    explained = learner.bootstrap(batch, logit_PT, 300)
    assert explained["like"] < least_explained(ROWS) < explained["rating"]
    score_BK = learner.score(features(toy, first=5000))
    mean = (1 / (1 + np.exp(-logit_PT[:, 1]))).mean()
    assert score_BK[:, 0] == pytest.approx(np.log(mean / (1 - mean)), abs=0.03)
    assert score_BK[:, 2].std() > 0.1
    assert score_BK[:, 2].mean() == pytest.approx(logit_PT[:, 2].mean(), abs=0.2)
    assert learner.bootstrapped_rows == ROWS


def test_a_task_without_a_twin_starts_neutral(toy: Any) -> None:
    assert not bootstrapped(toy).score(features(toy))[:, 1].any()


def test_a_second_teacher_task_on_the_same_tower_is_no_start(toy: Any) -> None:
    like, finish = (DistillationConfig(teacher_task=name, student_task="like") for name in ("like", "finish"))
    batch = features(toy, first=5000)
    learner = bootstrapped(toy, distillation=(like, finish))
    assert learner.score(batch)[:, 0].mean() == pytest.approx(teacher_logits(batch)[:, 1].mean(), rel=0.4)


def test_what_is_off_on_the_stream_is_bootstrapped_in_full(toy: Any, equal: Any) -> None:
    changed = tuple(d.model_copy(update={"weight": 0.0}) for d in toy.distillation)
    equal(bootstrapped(toy, steps=30, distillation=changed).tensors(), bootstrapped(toy, steps=30).tensors())


def test_the_control_learns_as_if_there_had_been_no_bootstrap(toy: Any) -> None:
    with_bootstrap = toy.learnt(bootstrapped(toy), toy.batches(6))
    without = toy.learnt(Learner(toy.setup()), toy.batches(6))
    controls = ({n: t for n, t in x.tensors().items() if n.startswith("control/")} for x in (with_bootstrap, without))
    left, right = controls
    assert left.keys() == right.keys()
    assert [name for name, tensor in left.items() if tensor.tobytes() != right[name].tobytes()] == []


def test_the_stream_goes_on_from_the_bootstrap_and_its_labels_soon_set_the_level(toy: Any) -> None:
    """The teacher thinks likes are rare, the labels say otherwise: 3,200 of them settle it."""
    learner = toy.learnt(bootstrapped(toy), toy.batches(400))
    share = float(np.mean([toy.example(n).labels["like"] for n in range(3200)]))
    predicted = 1 / (1 + np.exp(-learner.score(features(toy, first=9000))[:, 0]))
    assert predicted.mean() == pytest.approx(share, abs=0.1)


def test_the_first_labels_hardly_move_what_the_bootstrap_has_learnt(toy: Any) -> None:
    """Adam's first steps are as long as the learning rate, whatever the gradient."""
    weights, moved = "student/weights/", {}
    for name, learner in (("bootstrapped", bootstrapped(toy)), ("fresh", Learner(toy.setup()))):
        before = {n: t.copy() for n, t in learner.tensors().items() if n.startswith(weights) and "embedding" not in n}
        after = toy.learnt(learner, toy.batches(50)).tensors()
        moved[name] = max(float(np.abs(after[n] - t).max()) for n, t in before.items())
    assert moved["bootstrapped"] < 0.1 * moved["fresh"]


def test_a_bootstrap_is_repeated_bit_for_bit_and_survives_a_restart(toy: Any, equal: Any) -> None:
    first, second = bootstrapped(toy), bootstrapped(toy)
    equal(first.tensors(), second.tensors())
    restored = Learner(toy.setup())
    restored.restore({n: t.copy() for n, t in first.tensors().items()}, first.state())
    assert restored.bootstrapped_rows == ROWS
    equal(toy.learnt(restored, toy.batches(3)).tensors(), toy.learnt(second, toy.batches(3)).tensors())


def test_a_learner_state_with_the_former_name_of_the_bootstraps_size_is_continued(toy: Any) -> None:
    learner = bootstrapped(toy)
    state = learner.state()
    state["bootstrapped_pairs"] = state.pop("bootstrapped_rows")
    restored = Learner(toy.setup())
    restored.restore(learner.tensors(), state)
    assert restored.state() == learner.state()
    assert restored.state()["bootstrapped_rows"] == ROWS


def test_a_missing_logit_costs_its_row_alone(toy: Any) -> None:
    batch = features(toy)
    logit_PT = teacher_logits(batch)
    logit_PT[::3] = np.nan
    learner = Learner(toy.setup())
    learner.bootstrap(batch, logit_PT, 20)
    assert all(np.isfinite(t).all() for n, t in learner.tensors().items() if n.startswith("student/"))


def test_a_bootstrap_after_the_first_example_is_refused(toy: Any) -> None:
    learner = toy.learnt(Learner(toy.setup()), toy.batches(1))
    with pytest.raises(InvalidInputError, match=r"a student without examples, got .* 8 examples"):
        learner.bootstrap(features(toy), teacher_logits(features(toy)), 1)


def test_a_bootstrap_on_too_few_rows_to_hold_some_out_is_refused(toy: Any) -> None:
    batch = features(toy, count=110)
    logit_PT = teacher_logits(batch)
    logit_PT[::10] = np.nan
    with pytest.raises(InvalidInputError, match=r"100 rows with teacher logits .* 99 rows with logits"):
        Learner(toy.setup()).bootstrap(batch, logit_PT, 1)


def test_a_bootstrap_without_a_distillation_is_refused_as_such(toy: Any) -> None:
    with pytest.raises(
        InvalidInputError, match=r"a bootstrap needs a \[\[distillation\]\] table, .* got 0 such tables"
    ):
        bootstrapped(toy, distillation=())


def test_rows_are_distinct_and_repeatable() -> None:
    rows = sample_rows([1, 2, 3], ["a", "b", "c", "d"], 8, 7)
    assert len({(row.user_id, row.item_id) for row in rows}) == 8
    assert rows == sample_rows([1, 2, 3], ["a", "b", "c", "d"], 8, 7)
    assert rows != sample_rows([1, 2, 3], ["a", "b", "c", "d"], 8, 8)
    assert {(row.user_id, row.item_id) for row in sample_rows([1, 2], [3], 100, 7)} == {(1, 3), (2, 3)}


def test_a_row_has_a_context_that_its_user_has_had_where_one_was_logged() -> None:
    contexts = {1: [{"hour": 3}, {"hour": 5}], 2: [{"hour": 9}]}
    rows = sample_rows([1, 2, 3], list(range(30)), 90, 7, contexts)
    found = {user: {row.context.get("hour") for row in rows if row.user_id == user} for user in (1, 2, 3)}
    assert found == {1: {3, 5}, 2: {9}, 3: {None}}


class Store:
    """A feature store of the toy's users and items."""

    def read(
        self, user_ids: Sequence[int | str], item_ids: Sequence[int | str], contexts: Sequence[Mapping[str, Any]]
    ) -> Mapping[str, Sequence[Value]]:
        assert not any(contexts)
        return {
            "age": [20 + int(user) for user in user_ids],
            "user_id": list(user_ids),
            "taste": [[0.5, -0.5] for _ in user_ids],
            "item_id": list(item_ids),
            "mean": [int(str(item)[1:]) / 30 for item in item_ids],
        }


class Scorer:
    """Stands for the teacher: likes follow the item's mean; it cannot score item i3."""

    def score(self, requests: Sequence[Any]) -> ScoredRows:
        kept = [request for request in requests if request.item_id != "i3"]
        logits = [[0.0, self.like(float(request.features[4])), 3.5] for request in kept]
        return ScoredRows(kept, np.array(logits, np.float32), 0.0)

    def like(self, mean: float) -> float:
        return 4 * mean - 2


class ConstantScorer(Scorer):
    """A teacher all of whose inputs fall back to their defaults."""

    def like(self, _mean: float) -> float:
        return -1.0


class NearlyConstantScorer(Scorer):
    """The same, as a batch rounds it: the student explains all of such a difference, by chance."""

    def like(self, mean: float) -> float:
        return -1.0 + 1e-7 * round(10 * mean)


@pytest.fixture
def teacher() -> TeacherConfig:
    tasks = [{"name": name, "kind": "binary", "output": name} for name in ("finish", "like")]
    tasks.append({"name": "rating", "kind": "regression", "output": "rating"})
    return TeacherConfig.model_validate({"version": "t1", "onnx": "x.onnx", "tasks": tasks, "inputs": {}})


def publish(
    toy: Any, registry: Registry, teacher: TeacherConfig, steps: int = 200, scorer: Scorer | None = None
) -> Any:
    rows = sample_rows(list(range(20)), [f"i{n}" for n in range(30)], 300, 7)
    return run_bootstrap(
        setup=toy.setup(),
        config=BootstrapConfig(rows=300, steps=steps),
        teacher=teacher,
        registry=registry,
        rows=rows,
        reader=Store(),
        scorer=scorer or Scorer(),  # type: ignore[arg-type]
    )


def test_the_first_version_serves_the_teachers_order_and_says_where_it_is_from(
    toy: Any, teacher: TeacherConfig, tmp_path: Path
) -> None:
    registry = Registry(tmp_path)
    report = publish(toy, registry, teacher)
    manifest, tensors = registry.load_model("v000001")
    assert report.version == registry.champion() == "v000001"
    assert report.explained["like"] > 0.9
    assert (manifest.examples, manifest.offsets, manifest.teacher_version) == (0, {}, "t1")
    assert 280 < manifest.bootstrapped_rows == report.rows < 300
    columns = Store().read([1] * 30, [f"i{n}" for n in range(30)], [{}] * 30)
    scores = NumpyStudent(manifest, tensors).score(toy.spec.encode(columns))
    assert np.corrcoef(scores["like"], np.arange(30))[0, 1] > 0.9
    assert scores["rating"].mean() == pytest.approx(3.5, abs=0.2)


def test_a_teacher_that_cannot_be_learnt_publishes_nothing(toy: Any, teacher: TeacherConfig, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"explains like 0\.0 %, .* at least 31 % of one .*'graft check'"):
        publish(toy, Registry(tmp_path), teacher, scorer=ConstantScorer())
    assert Registry(tmp_path).latest() is None


@pytest.mark.parametrize("scorer", [ConstantScorer(), NearlyConstantScorer()])
def test_a_teacher_that_says_the_same_of_every_row_is_refused_by_name(
    toy: Any, teacher: TeacherConfig, tmp_path: Path, scorer: Scorer
) -> None:
    """Of differences that are rounding a student explains nearly all: `rating 100 %` was taken for learnt."""
    with pytest.raises(InvalidInputError, match=r"explains .*like 0\.0 %.*The teacher says the same of every row for"):
        publish(toy, Registry(tmp_path), teacher, scorer=scorer)
    assert Registry(tmp_path).latest() is None


def test_a_bootstrap_comes_once(toy: Any, teacher: TeacherConfig, tmp_path: Path) -> None:
    publish(toy, Registry(tmp_path), teacher)
    with pytest.raises(InvalidInputError, match="has versions up to v000001: a bootstrap is for an empty registry"):
        publish(toy, Registry(tmp_path), teacher, steps=1)
