"""Profiles computed by hand, with the teacher finish = age_code + sum(taste), rating = year / 2."""

import numpy as np
import pytest
from onnx import helper

from features.config import ProfileConfig
from features.spec import Feature
from runtime.errors import ConfigurationError
from teacher_cache.config import TeacherVector
from teacher_cache.domain.domain_map import DomainMap
from teacher_cache.kinds.load import load_teacher
from teacher_cache.profiles import Profiler, draw_references, faults_of_profiles
from tests.specs import spec_of
from tests.teacher_cache.conftest import FEATURES, NODES, OUTPUTS

USERS = {1: 16, 2: 20, 3: 40}  # the codes 1, 18, 25
ITEMS = {10: ([1.0, 0.0, 0.0], 5.0), 11: ([2.0, 2.0, 0.0], 7.0), 12: ([float("inf"), 0.0, 0.0], 5.0)}
OF_ITEM = ProfileConfig(entity="item", push_source="items", columns={"f": "finish", "r": "rating"})
OF_USER = ProfileConfig(entity="user", push_source="users", columns={"f": "finish"})


class Store:
    """The features of the users and items above."""

    def read(self, user_ids, item_ids, _contexts):
        items = [ITEMS.get(item, (None, None)) for item in item_ids]
        return {
            "users:age": [USERS.get(user) for user in user_ids],
            "users:job": [None for _ in user_ids],
            "items:vector": [vector for vector, _ in items],
            "items:year": [year for _, year in items],
            "item_id": list(item_ids),
        }


@pytest.fixture
def profiler(teacher, domain_map, spec):
    return Profiler(teacher, domain_map, spec, Store(), ())


def test_the_profile_of_an_item_is_its_mean_over_reference_users(profiler):
    profiles = profiler.profiles(OF_ITEM, [10, 11], [1, 2])
    assert profiles.of == {
        10: {"f": pytest.approx((1 + 18) / 2 + 1), "r": pytest.approx((2 * 5 - 1) / 2)},
        11: {"f": pytest.approx((1 + 18) / 2 + 4), "r": pytest.approx((2 * 7 - 1) / 2)},
    }
    assert profiles.rows("items", "item", [11, 10])["f"] == pytest.approx([13.5, 10.5])
    assert profiles.has("item", 10)
    assert not profiles.has("item", 12)
    assert not profiles.has("user", 10)


def test_the_profile_of_a_user_is_its_mean_over_reference_items(profiler):
    assert profiler.profiles(OF_USER, [3], [10, 11]).of == {3: {"f": pytest.approx(25 + (1 + 4) / 2)}}


def test_an_id_without_features_has_the_profile_of_the_teachers_defaults(profiler):
    assert profiler.profiles(OF_USER, [99], [10]).of == {99: {"f": pytest.approx(7 + 1)}}


def test_many_ids_have_the_profiles_that_each_has_alone(profiler, monkeypatch):
    alone = {one: profiler.profiles(OF_ITEM, [one], [1, 2, 3]).of[one] for one in (10, 11, 99)}
    monkeypatch.setattr("teacher_cache.profiles.BATCH_ROWS", 7)
    assert profiler.profiles(OF_ITEM, [10, 11, 99], [1, 2, 3]).of == alone


def test_features_that_are_pushed_are_missing_in_the_rows_that_are_scored(teacher, domain_map, spec):
    blind = Profiler(teacher, domain_map, spec, Store(), ["users"])
    assert blind.profiles(OF_USER, [3], [10]).of == {3: {"f": pytest.approx(7 + 1)}}


def test_rows_that_the_teacher_cannot_score_are_left_out_of_the_mean(profiler, monkeypatch):
    monkeypatch.setitem(USERS, 4, 10**18)
    vector = np.array([np.finfo(np.float32).max] * 3).tolist()
    monkeypatch.setitem(ITEMS, 13, (vector, 5.0))
    profiles = profiler.profiles(OF_USER, [1], [10, 13])
    assert profiles.of == {1: {"f": pytest.approx(1 + 1)}}, "the sum of item 13 is infinite"
    assert profiler.profiles(OF_ITEM, [13, 10], [1]).of.keys() == {10}


def test_a_vector_of_the_teacher_is_averaged_element_by_element(save_onnx, config, tmp_path, spec):
    from onnx import TensorProto  # noqa: PLC0415 - beside its only use

    nodes = [*NODES, helper.make_node("Add", ["taste", "age_column"], ["own"])]
    save_onnx(outputs={**OUTPUTS, "own": (TensorProto.FLOAT, ["B", 3])}, nodes=nodes)
    config = config.model_copy(update={"vectors": [TeacherVector(name="taste", output="own")]})
    teacher = load_teacher(config, tmp_path)
    assert teacher.outputs == {"finish": (), "rating": (), "taste": (3,)}
    profiler = Profiler(teacher, DomainMap(config, tmp_path, teacher, spec), spec, Store(), ())
    table = ProfileConfig(entity="item", push_source="items", columns={"v": "taste"})
    assert profiler.profiles(table, [11], [1, 2]).of == {11: {"v": pytest.approx([11.5, 11.5, 9.5])}}


@pytest.mark.parametrize(
    ("vector", "fault"),
    [
        (TeacherVector(name="finish", output="own"), "'finish' stands for another output already"),
        (TeacherVector(name="v", output="nothing"), "the teacher has no 'nothing', it has finish_logit, rating_value"),
        (TeacherVector(name="v", output="rating_value"), "has shape ['B'], allowed is [B, n], n fixed"),
    ],
)
def test_a_vector_that_the_teacher_does_not_have_is_named(save_onnx, config, tmp_path, vector, fault):
    save_onnx()
    with pytest.raises(ConfigurationError) as caught:
        load_teacher(config.model_copy(update={"vectors": [vector]}), tmp_path)
    assert fault in "\n".join(caught.value.faults)


def _profile(dtype, role, default, of):
    return Feature(name="t:x", source="item", role=role, dtype=dtype, default=default, profile_of=of)


def test_a_feature_that_cannot_hold_its_profile_is_named(teacher, domain_map):
    outputs = {"like": (), "own": (2,)}
    sound = [_profile("float", "dense", 0.0, "like"), _profile("float_list", "embedding", [0.0, 0.0], "own")]
    assert faults_of_profiles([*FEATURES, *sound], outputs) == []
    faulty = [_profile("float_list", "embedding", [0.0, 0.0], "like"), _profile("float", "dense", 0.0, "own")]
    faulty.append(_profile("float_list", "embedding", [0.0], "own"))
    ends = ["is a number; its field", "which is a list of 2 numbers; its field", "2 numbers; the field or its default"]
    for fault, end in zip(faults_of_profiles(faulty, outputs), ends, strict=True):
        assert end in fault
    with pytest.raises(ConfigurationError, match="a profile of 'finish'"):
        Profiler(teacher, domain_map, spec_of(_profile("float_list", "embedding", [0.0], "finish")), Store(), ())


def test_references_are_the_same_wherever_they_are_drawn():
    ids = [*range(50), "a", "b"]
    drawn = draw_references(ids, 8)
    assert len(set(drawn)) == 8
    assert draw_references(list(reversed(ids)), 8) == drawn
    assert draw_references([1, 2], 8) == draw_references([2, 1], 8)
