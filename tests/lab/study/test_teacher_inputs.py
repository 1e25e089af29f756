"""What the teacher's inputs say on a log."""

import numpy as np
import pytest

from lab.study.grid import TeacherChange
from lab.study.learners.teachers import StudyTeacher, inputs_in_use, moving_inputs, requests_of
from teacher_cache.config import DumpConfig
from tests.lab.study.conftest import Pair

COUNT = 300


def test_inputs_come_by_how_far_they_move_the_logits_and_with_how_often_they_are_not_fed(pair: Pair) -> None:
    log = pair.log.first(COUNT)
    names = [feature.name for feature in pair.spec.features]
    records = list(log.records)
    for n in range(0, COUNT, 3):  # a third of the listeners has no age
        features = list(records[n].example.features)
        features[names.index("listener:age")] = None
        records[n] = records[n]._replace(example=records[n].example.model_copy(update={"features": features}))
    log = log._replace(records=records)
    share = {one.name: one.fell_back for one in inputs_in_use(pair.project, log)}
    unfed = {"viewer_id", "viewer_views", "viewer_play_share"}
    assert share.keys() == pair.project.needed_teacher.inputs.keys()
    assert {name for name, fell_back in share.items() if fell_back == 1} == unfed
    assert (share["age_group"], share["style_code"]) == (pytest.approx(1 / 3), 0.0)
    # The teacher of a study, with one input at its default, says how far that moves its logits.
    given_BT, *changed = (
        StudyTeacher(TeacherChange(defaulted=names), pair.project, pair.spec).score_all(requests_of(log)).logit_BT
        for names in ([], *([name] for name in share))
    )
    moved = [float(np.mean(np.abs(given_BT - other_BT).mean(axis=0) / given_BT.std(axis=0))) for other_BT in changed]
    by_far = sorted(zip(moved, share, strict=True), reverse=True)
    assert moving_inputs(pair.project, log) == [name for far, name in by_far if far > 0]
    assert {name for far, name in by_far if far == 0} == unfed


def test_a_dump_and_a_project_without_a_teacher_have_no_inputs_to_compare(pair: Pair) -> None:
    teacher = pair.project.needed_teacher
    dump = teacher.model_copy(
        update={"onnx": None, "dump": DumpConfig(path="logits.parquet", model="m", keys={"viewer": "str"})}
    )
    for other in (dump, None):
        project = pair.project.model_copy(update={"teacher": other})
        assert inputs_in_use(project, pair.log.first(10)) == moving_inputs(project, pair.log.first(10)) == []
