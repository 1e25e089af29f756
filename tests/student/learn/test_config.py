"""The tables of graft.toml that say how the student is distilled."""

from typing import Any

import pytest
from pydantic import ValidationError

from student.learn.config import DistillationConfig


def config(**changes: Any) -> DistillationConfig:
    return DistillationConfig(teacher_task="like", **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"adapter": True}, "student_task must be set with adapter, which learns from its labels"),
        (
            {"loss": "listwise", "temperature": 2.0},
            "temperature must be 1 with loss 'listwise', which has no soft label",
        ),
        ({"half_life_examples": 0}, "greater than or equal to 1"),
    ],
)
def test_an_option_without_an_effect_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        config(**changes)


@pytest.mark.parametrize("key", ["schedule", "decay_examples", "max_wait_seconds", "label_scale"])
def test_a_key_of_former_days_is_refused_by_its_name(key: str) -> None:
    with pytest.raises(ValidationError, match=rf"{key}\n  Extra inputs are not permitted"):
        config(**{key: 1})


def test_the_loss_of_a_served_head_is_no_setting() -> None:
    with pytest.raises(ValidationError, match="'soft_label', 'logit_mse', 'listwise' or 'pairwise'"):
        config(loss="direct")


def test_a_weight_stays_or_is_halved_after_every_half_life() -> None:
    assert config(weight=0.5).weight_after(10**9) == 0.5
    decaying = config(weight=0.5, half_life_examples=100)
    assert [decaying.weight_after(n) for n in (0, 100, 200)] == [0.5, 0.25, 0.125]
    assert decaying.weight_after(10**9) == 0
