"""What serving would have said: which version says it, which versions are kept, and what is made of it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from features.spec import FeatureBatch
from student.evaluate import served_versions
from student.evaluate.served import JudgedExamples, ServedEvaluation
from student.evaluate.served_versions import MOST_KEPT, ServedVersions
from student.learn.learner import Learner
from student.versions.manifest import Manifest
from student.versions.numpy_model import NumpyStudent
from student.versions.registry import Registry
from tests.student.learn.test_learner import draft
from tests.student.versions.promoted import promote

TASKS = 3


class Published:
    """Versions of one learner, each after eight more examples than the one before."""

    def __init__(self, toy: Any, folder: Path) -> None:
        self._toy, self._learner = toy, Learner(toy.setup())
        self.registry = Registry(folder)
        self.versions = ServedVersions(self.registry)

    def publish(self, until_ms: int, reached_ms: int = 0) -> Manifest:
        """A version whose examples had closed at `until_ms`; examples have reached `reached_ms`."""
        self._toy.learnt(self._learner, self._toy.batches(1, first=self._learner.examples))
        of = draft(self._learner).model_copy(update={"learnt_until_ms": until_ms})
        manifest = self.registry.publish(of, self._learner.served_tensors(), {}, {})
        self.versions.add(manifest, reached_ms)
        return manifest

    def rows(self, count: int) -> FeatureBatch:
        examples = [self._toy.example(5000 + n) for n in range(count)]
        features: FeatureBatch = self._toy.spec.encode(self._toy.spec.columns_of([e.features for e in examples]))
        return features

    def learnt(self, times_ms: Sequence[int]) -> list[float | None]:
        """How many examples the version had learnt that says something at each of these times."""
        served = self.versions.predict(self.rows(len(times_ms)), np.array(times_ms), TASKS)
        return [None if np.isnan(learnt) else learnt for learnt in served.learnt_B]


@pytest.fixture
def published(toy: Any, tmp_path: Path) -> Published:
    return Published(toy, tmp_path)


def test_a_row_is_predicted_by_the_newest_version_whose_examples_had_closed(published: Published) -> None:
    for until_ms in (1_000, 2_000, 3_000):
        published.publish(until_ms)
    # An example closes when event time has passed its window: at the very moment it has not.
    assert published.learnt([500, 1_000, 1_001, 2_000, 2_001, 9_000, 1_500]) == [None, None, 8, 8, 16, 24, 8]


def test_before_the_first_version_that_is_old_enough_nothing_is_said(published: Published) -> None:
    published.publish(1_000)
    value_BKA, learnt_B, _ = published.versions.predict(published.rows(3), np.array([900, 1_000, 1_100]), TASKS)
    assert np.isnan(value_BKA[:2]).all()
    assert np.isfinite(value_BKA[2]).all()
    assert np.isnan(learnt_B).tolist() == [True, True, False]


def test_a_served_prediction_is_what_a_scorer_answers_that_has_loaded_that_version(published: Published) -> None:
    manifests = [published.publish(until_ms) for until_ms in (1_000, 2_000)]
    features, times = published.rows(40), np.array([1_500, 2_500] * 20)
    value_BKA, *_ = published.versions.predict(features, times, TASKS)
    for manifest, rows in zip(manifests, (slice(0, None, 2), slice(1, None, 2)), strict=True):
        scorer = NumpyStudent(*published.registry.load_model(manifest.version))
        scores = scorer.score(FeatureBatch(*(column[rows] for column in features)))
        assert np.array_equal(scores["rating"], value_BKA[rows, 2, 0])
        np.testing.assert_allclose(scores["like"], 1 / (1 + np.exp(-value_BKA[rows, 0, 0])), rtol=1e-6)
    assert not np.array_equal(value_BKA[:, :, 0], value_BKA[:, :, 1]), "the control says the same: nothing is shown"


def test_the_control_is_what_the_student_is_whom_the_guard_does_not_trust(published: Published) -> None:
    manifest = published.publish(1_000)
    _, tensors = published.registry.load_model(manifest.version)
    distrusted = NumpyStudent(manifest, tensors | {"guard.weight": np.zeros(TASKS, np.float32)})
    features = published.rows(10)
    value_BKA, *_ = published.versions.predict(features, np.full(10, 2_000), TASKS)
    assert np.array_equal(distrusted.score(features)["rating"], value_BKA[:, 2, 1])


def test_of_too_many_versions_those_go_first_that_no_example_needs_any_more(published: Published) -> None:
    for n in range(MOST_KEPT + 2):
        published.publish(1_000 * (n + 1), reached_ms=2_500)
    # v000002 is the newest that is old enough for 2,500: it stays, as all after it do.
    assert published.versions.names == [f"v{n:06d}" for n in (2, *range(4, MOST_KEPT + 3))]


def test_a_window_with_hundreds_of_versions_always_finds_one_that_is_not_much_too_old(published: Published) -> None:
    window_ms = 100_000
    published.publish(0)
    for until_ms in range(1_000, 4 * window_ms, 1_000):
        published.versions.add(
            published.registry.load_manifest("v000001").model_copy(update={"learnt_until_ms": until_ms}),
            until_ms - window_ms,
        )
        kept = [one.learnt_until_ms for one in published.versions._kept]
        assert len(kept) <= MOST_KEPT
        assert kept[-1] == until_ms
        needed_ms = until_ms - window_ms
        if needed_ms > 0:
            newest = max((one for one in kept if one < needed_ms), default=None)
            assert newest is not None
            assert needed_ms - newest <= window_ms / 3


def test_a_version_is_mapped_once_and_let_go_of(published: Published, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[str] = []

    class Counted(NumpyStudent):
        def __init__(self, manifest: Manifest, tensors: Any, *, with_control: bool) -> None:
            built.append(manifest.version)
            super().__init__(manifest, tensors, with_control=with_control)

    monkeypatch.setattr(served_versions, "NumpyStudent", Counted)
    for until_ms in (1_000, 2_000):
        published.publish(until_ms)
    assert built == []
    for times in ([1_500, 1_600], [1_700, 2_500], [2_600], [2_700]):
        published.learnt(times)
    assert built == ["v000001", "v000002"]
    assert list(published.versions._students) == ["v000002"]


def test_a_mapped_version_goes_on_without_its_folder(published: Published) -> None:
    first = published.publish(1_000)
    published.publish(2_000)
    before = published.versions.predict(published.rows(4), np.full(4, 1_500), TASKS)
    published.registry.prune(keep=1)
    after = published.versions.predict(published.rows(4), np.full(4, 1_500), TASKS)
    assert before.value_BKA.tobytes() == after.value_BKA.tobytes()
    assert first.version in published.versions.names


def test_a_version_that_was_removed_before_it_was_needed_is_done_without(
    published: Published, caplog: pytest.LogCaptureFixture
) -> None:
    for until_ms in (1_000, 2_000, 3_000):
        published.publish(until_ms)
    promote(published.registry, "v000003")
    (published.registry.folder / "v000002").rename(published.registry.folder / "gone")
    assert published.learnt([1_500, 2_500, 3_500]) == [8, 8, 24]
    assert "served metrics do without" in caplog.text
    restored = ServedVersions(published.registry)
    restored.restore(["v000001", "v000002", "v000003"])
    assert restored.names == ["v000001", "v000003"]


def judged(published: Published, count: int) -> tuple[JudgedExamples, NDArray[np.int64]]:
    random = np.random.default_rng(3)
    time_B = 1_100 + 10 * np.arange(count)
    label_BK = np.stack([*(random.integers(0, 2, (2, count))), random.normal(3, 1, count)], axis=1)
    user_B = random.integers(0, 30, count).astype(np.uint64)
    numbers = np.arange(100, 100 + count)
    weight_B, new_2B = np.ones(count, np.float32), np.zeros((2, count), np.bool_)
    labels = label_BK.astype(np.float32)
    examples = JudgedExamples(published.rows(count), time_B, numbers, labels, user_B, weight_B, new_2B)
    return examples, time_B


def part(examples: JudgedExamples, rows: slice) -> JudgedExamples:
    features = FeatureBatch(*(column[rows] for column in examples.features))
    return JudgedExamples(features, *(column[rows] for column in examples[1:-1]), examples.new_2B[:, rows])


def test_metrics_tell_losses_and_how_old_the_versions_were(toy: Any, published: Published) -> None:
    published.publish(1_000)
    published.publish(1_500)
    examples, time_B = judged(published, 60)
    evaluation = ServedEvaluation(toy.tasks, published.versions)
    evaluation.update(examples)
    rating = evaluation.whole()["rating"]
    value_BKA, *_ = published.versions.predict(examples.features, time_B, TASKS)
    for a, arm in enumerate(("served_student", "served_control")):
        assert rating[arm].count == 60
        assert rating[arm].rmse == pytest.approx(((value_BKA[:, 2, a] - examples.label_BK[:, 2]) ** 2).mean() ** 0.5)
        learnt_B = np.where(time_B <= 1_500, 8, 16)
        assert rating[arm].age_examples == pytest.approx((examples.number_B - learnt_B).mean())
    assert list(rating) == ["served_student", "served_control"]


@pytest.mark.parametrize("size", [1, 7, 64])
def test_how_many_examples_come_together_does_not_matter(toy: Any, published: Published, size: int) -> None:
    published.publish(1_000)
    published.publish(3_000)
    examples, _ = judged(published, 300)
    together, cut = (ServedEvaluation(toy.tasks, published.versions) for _ in range(2))
    together.update(examples)
    for first in range(0, 300, size):
        cut.update(part(examples, slice(first, first + size)))
    assert list(cut.slices()["whole"]["like"]) == ["served_student", "served_control"]
    for name, metrics in together.slices().items():
        for arm, found in cut.slices()[name]["like"].items():
            assert found.model_dump(exclude_none=True) == pytest.approx(
                metrics["like"][arm].model_dump(exclude_none=True)
            )


def test_a_restored_evaluation_goes_on_bit_for_bit(toy: Any, published: Published) -> None:
    published.publish(1_000)
    examples, _ = judged(published, 300)
    whole = ServedEvaluation(toy.tasks, published.versions)
    whole.update(part(examples, slice(0, 100)))
    tensors = {name: tensor.copy() for name, tensor in whole.tensors().items()}
    resumed = ServedEvaluation(toy.tasks, ServedVersions(published.registry))
    resumed.restore(tensors, whole.kept)
    for evaluation in (whole, resumed):
        evaluation.update(part(examples, slice(100, 300)))
    left, right = whole.tensors(), resumed.tensors()
    assert {n: t.tobytes() for n, t in left.items()} == {n: t.tobytes() for n, t in right.items()}
    assert whole.slices() == resumed.slices()
