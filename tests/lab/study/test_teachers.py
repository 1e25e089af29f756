"""What a study does to a teacher."""

import numpy as np
import pytest
from numpy.typing import NDArray

from lab.study.grid import TeacherChange
from lab.study.learners.teachers import StudyTeacher, changed, requests_of
from runtime.errors import ConfigurationError
from tests.lab.study.conftest import Pair


def test_a_permuted_teacher_has_the_same_logits_on_other_rows(logits: NDArray[np.float32]) -> None:
    permuted_NT = changed(TeacherChange(permuted=True), logits)
    assert sorted(permuted_NT[:, 0]) == sorted(logits[:, 0])
    assert (permuted_NT == logits).all(axis=1).mean() < 0.02
    assert abs(np.corrcoef(permuted_NT[:, 0], logits[:, 0])[0, 1]) < 0.1


def test_a_defaulted_input_says_the_same_for_every_row(pair: Pair) -> None:
    inputs = [name for name, mapped in pair.project.teacher.inputs.items() if mapped.kind != "default"]
    blind = StudyTeacher(TeacherChange(defaulted=inputs), pair.project, pair.spec)
    assert blind.score_all(requests_of(pair.log)).logit_BT.std(axis=0).max() < 1e-4


def test_an_unknown_input_is_refused_with_those_there_are(pair: Pair) -> None:
    with pytest.raises(ConfigurationError, match=r"no input 'colour'; it has viewer_id"):
        StudyTeacher(TeacherChange(defaulted=["colour"]), pair.project, pair.spec)


def test_logits_as_inputs_are_dense_features_of_the_same_examples(pair: Pair, logits: NDArray[np.float32]) -> None:
    missing_NT = logits.copy()
    missing_NT[0] = np.nan
    wide = pair.log.with_inputs(["a", "b", "c"], missing_NT)
    assert wide.spec.dense_names == (*pair.spec.dense_names, "context:a", "context:b", "context:c")
    assert wide.spec.spec_id != pair.spec.spec_id
    batch = wide.spec.encode(wide.spec.columns_of([example.features for example in wide.examples[:5]]))
    assert (batch.dense_BD[:, -3:] == np.nan_to_num(missing_NT[:5])).all()
    assert wide.examples[1].features[:-3] == pair.log.examples[1].features
