"""A learner in two and three ranks learns what it learns in one process."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from student.learn.learner import Learner
from tests.student.learn.rank_learning import SETUPS, learn_on, restored, save, warm
from tests.student.learn.ranks import all_end_well, start_ranks

RANKS = (2, 3)
LEARNING = "tests.student.learn.rank_learning"


@pytest.fixture(scope="module")
def learnt(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Folders in which so many ranks have gone on from warm learners."""
    torch.set_num_threads(1)
    folders = {count: tmp_path_factory.mktemp(f"ranks{count}") for count in RANKS}
    for name in SETUPS:
        learner = warm(name)
        for folder in folders.values():
            save(learner, folder, name)
    for count, folder in folders.items():
        all_end_well(start_ranks(count, [LEARNING, str(folder)]), 60)
    return folders


def on_rank(folder: Path, name: str, rank: int) -> Learner:
    return restored(folder, f"{name}-{rank}", name)


@pytest.mark.parametrize("count", RANKS)
@pytest.mark.parametrize("name", [name for name in SETUPS if name != "cold"])
def test_ranks_learn_what_one_process_learns(learnt: dict[int, Path], name: str, count: int) -> None:
    """Only rounding differs: sums over rows have another order.

    So little only from a warm state on. Adam's first steps divide a gradient by itself: they make a whole step, up or
    down, of a gradient that is but rounding. Of a cold learner the next test compares gradients.
    """
    alone, ranks = warm(name), on_rank(learnt[count], name, 0)
    learn_on(alone, name)
    assert ranks.state() == alone.state()
    expected = alone.tensors()
    assert ranks.tensors().keys() == expected.keys()
    for tensor, found in ranks.tensors().items():
        if np.issubdtype(found.dtype, np.floating):
            np.testing.assert_allclose(found, expected[tensor], rtol=1e-5, atol=1e-5, err_msg=tensor)
        elif "histogram" not in tensor:  # a prediction at the edge of a bin may fall on its other side
            np.testing.assert_array_equal(found, expected[tensor], tensor)


@pytest.mark.parametrize("count", RANKS)
def test_the_gradients_of_the_first_step_are_those_of_one_process(learnt: dict[int, Path], count: int) -> None:
    alone, ranks = warm("cold"), on_rank(learnt[count], "cold", 0)
    learn_on(alone, "cold")
    for arm in ("student", "control"):
        expected = alone.tensors()[f"{arm}/adam/first"]
        assert np.any(expected)
        np.testing.assert_allclose(ranks.tensors()[f"{arm}/adam/first"], expected, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("count", RANKS)
@pytest.mark.parametrize("name", SETUPS)
def test_all_ranks_hold_the_same_state_bit_for_bit(
    learnt: dict[int, Path], equal: Callable[..., None], name: str, count: int
) -> None:
    first = on_rank(learnt[count], name, 0)
    for rank in range(1, count):
        other = on_rank(learnt[count], name, rank)
        assert other.state() == first.state()
        equal(other.tensors(), first.tensors())


def test_what_ranks_have_learnt_goes_on_in_one_process(learnt: dict[int, Path]) -> None:
    alone, after_ranks = warm("soft_label"), on_rank(learnt[2], "soft_label", 1)
    learn_on(alone, "soft_label")
    for learner in (alone, after_ranks):
        learn_on(learner, "soft_label")
    weights: dict[str, Any] = after_ranks.served_tensors()
    for name, expected in alone.served_tensors().items():
        np.testing.assert_allclose(weights[name], expected, rtol=1e-4, atol=1e-4, err_msg=name)
