"""The teacher's features: the student sees them, its control does not, and the scorer computes the same of them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from features.spec import Feature, FeatureSpec
from stream.events import Example
from student.learn.batch import encoded, hashes
from student.learn.learner import Learner
from student.learn.posterior.priors import prior_of
from student.versions.manifest import Draft
from student.versions.numpy_model import NumpyStudent
from student.versions.registry import Registry
from student.versions.served_posterior import columns_of, units_of

PROFILES = (
    Feature(name="t:user", source="user", role="dense", dtype="float", default=0.5, profile_of="like"),
    Feature(name="t:item", source="item", role="dense", dtype="float", default=0.5, profile_of="like"),
    Feature(name="t:vector", source="item", role="embedding", dtype="float_list", default=[0.0], profile_of="own"),
)
FIRST = 4
"""The first dense column that is the teacher's."""


@pytest.fixture
def spec(toy: Any) -> FeatureSpec:
    features = (*toy.spec.features, *PROFILES)
    return FeatureSpec.model_validate({**toy.spec.model_dump(), "features": features})


def example(toy: Any, spec: FeatureSpec, number: int, scale: float = 1.0) -> Example:
    """A profile of an item that tells whether it is liked."""
    plain: Example = toy.example(number)
    item = int(str(plain.item_id)[1:])
    profiles = [scale * 0.1 * (int(plain.user_id) % 3), scale * (item % 2 - 0.5), [scale * item]]
    labels = {**plain.labels, "like": float(item % 2)}
    update = {"spec_id": spec.spec_id, "features": [*plain.features, *profiles], "labels": labels}
    return plain.model_copy(update=update)


def learnt(toy: Any, spec: FeatureSpec, scale: float = 1.0, **changes: Any) -> Learner:
    learner = Learner(toy.setup(spec=spec, **changes))
    for first in range(0, 160, 8):
        batch = [example(toy, spec, number, scale) for number in range(first, first + 8)]
        learner.learn(batch, np.full((8, 3), np.nan, np.float32))
    return learner


def predicted(learner: Learner, examples: list[Example]) -> Any:
    """Student and control [2, B, K]."""
    batch = encoded(learner.setup, examples, np.full((len(examples), 3), np.nan, np.float32))
    return learner.predictions(batch, hashes("item_id", [one.item_id for one in examples]))[:, :, :2].transpose(2, 0, 1)


def test_the_teachers_features_move_the_student_and_never_the_control(toy: Any, spec: FeatureSpec) -> None:
    one, other = learnt(toy, spec), learnt(toy, spec, scale=-3.0)
    rows = [[example(toy, spec, number, scale) for number in range(500, 510)] for scale in (1.0, -3.0)]
    student, control = predicted(one, rows[0])
    other_student, other_control = predicted(other, rows[1])
    assert (control == other_control).all()
    assert (student != other_student).all()


def test_a_student_without_distillation_sees_them_too(toy: Any, spec: FeatureSpec) -> None:
    learner = learnt(toy, spec, distillation=())
    student, control = predicted(learner, [example(toy, spec, number) for number in range(500, 510)])
    assert (student != control).all()


def test_the_scorer_computes_what_the_learner_predicts(toy: Any, spec: FeatureSpec, tmp_path: Path) -> None:
    learner, registry = learnt(toy, spec), Registry(tmp_path)
    draft = Draft(
        examples=learner.examples,
        offsets={},
        spec=spec,
        tasks=list(toy.tasks),
        student=toy.student,
        teacher_tasks=[task.name for task in toy.teacher_tasks],
        teacher_version="t1",
        metrics={},
    )
    registry.publish(draft, learner.served_tensors(), learner.tensors(), learner.state())
    rows = [example(toy, spec, number, scale=2.0).features for number in range(500, 530)]
    features = spec.encode(spec.columns_of(rows))
    scores = NumpyStudent(*registry.load_model("v000001")).score(features)
    value_BK = learner.score(features)
    np.testing.assert_allclose(scores["like"], 1 / (1 + np.exp(-value_BK[:, 0])), atol=1e-5)
    np.testing.assert_allclose(scores["rating"], value_BK[:, 2], atol=1e-4)


def test_profiles_of_a_task_share_one_unit_and_other_columns_keep_theirs(spec: FeatureSpec) -> None:
    columns = columns_of(spec, 3, ["finish", "like", "rating"])
    assert columns.profiles == ((), (FIRST, FIRST + 1), ())
    std_D = np.array([7.0, 7.0, 7.0, 7.0, 0.3, 0.4, 7.0], np.float32)
    assert units_of(columns, std_D).tolist() == pytest.approx([1, 1, 1, 1, 0.6, 0.8, 1])


def test_before_the_first_label_a_profile_moves_the_tasks_that_it_stands_for(toy: Any, spec: FeatureSpec) -> None:
    columns = columns_of(spec, 3, ["finish", "like", "rating"])
    mean_KP = prior_of(toy.setup(spec=spec), columns).mean_KP[:, columns.dense]
    assert mean_KP[0].tolist() == [0, 0, 0, 0, 0.5, 0.5, 0]
    assert not mean_KP[1:].any(), "hidden has no teacher task, and that of rating has no profile"


def test_examples_from_before_the_teachers_training_data_end_have_no_profile(toy: Any, spec: FeatureSpec) -> None:
    """As if nobody had computed them; later ones keep theirs."""
    examples = [example(toy, spec, number) for number in range(6)]
    from_ms = examples[3].event_time_ms
    without = [
        one.model_copy(update={"features": [*one.features[: -len(PROFILES)], None, None, None]}) for one in examples[:3]
    ]
    nothing = np.full((6, 3), np.nan, np.float32)
    cut = encoded(toy.setup(spec=spec, logits_from_ms=from_ms), examples, nothing)
    expected = encoded(toy.setup(spec=spec), [*without, *examples[3:]], nothing)
    assert cut.dense_BD.tobytes() == expected.dense_BD.tobytes()
    assert cut.dense_BD.tobytes() != encoded(toy.setup(spec=spec), examples, nothing).dense_BD.tobytes()
