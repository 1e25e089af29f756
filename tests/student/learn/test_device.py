"""Where an arm's tensors live. Without a GPU here, torch's meta device stands for one: it computes shapes alone."""

import numpy as np
import pytest
import torch

from student.learn.batch import Batch
from student.learn.network.arm import Arm
from tests.student.learn.rank_learning import SETUPS

META = torch.device("meta")


@pytest.mark.parametrize("name", SETUPS)
def test_a_step_is_taken_on_the_device_of_the_weights(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tensor on another device in any of its operations would be an error.

    Losses alone are computed from values on the host, and a tensor without values has none to give it.
    """
    monkeypatch.setattr("student.learn.network.arm.as_array", lambda value: np.zeros(value.shape, np.float32))
    setup = SETUPS[name]
    arm = Arm(setup, device=META)
    random = np.random.default_rng(1)
    dense, categorical = len(setup.spec.dense_names), len(setup.spec.categorical)
    rows = Batch(
        random.standard_normal((6, dense), np.float32),
        random.integers(0, 64, (6, categorical)),
        np.ones((6, len(setup.tasks)), np.float32),
        random.standard_normal((6, len(setup.teacher_tasks)), np.float32),
        np.ones((6, 1), np.float32),
    )
    arm.running.update(rows)
    arm.descend(arm.gradient(rows))
    monkeypatch.undo()
    devices = {tensor.device for part, tensor in arm.tensors().items() if part.startswith(("weights", "adagrad"))}
    assert devices == {META}
    assert arm.tensors()["adam/first"].device == META
    assert int(arm.tensors()["adam/steps"]) == 1
