"""The reservoir: a uniform sample in bounded memory, the same for the same seed and order."""

import numpy as np

from student.learn.batch import Batch, concatenate
from student.learn.network.replay_buffer import Reservoir


def rows(first: int, count: int) -> Batch:
    numbers = np.arange(first, first + count)[:, None]
    return Batch(
        numbers.astype(np.float32),
        numbers.astype(np.int64),
        numbers.astype(np.float32),
        numbers.astype(np.float32) + 0.5,
        numbers.astype(np.float32) + 1,
    )


def filled(capacity: int, count: int, seed: int = 0) -> Reservoir:
    reservoir = Reservoir(capacity, seed)
    for first in range(0, count, 10):
        reservoir.add(rows(first, 10))
    return reservoir


def test_until_it_is_full_it_holds_every_example() -> None:
    assert filled(40, 30).tensors()["category_BC"][:, 0].tolist() == list(range(30))


def test_every_example_is_as_likely_to_be_held() -> None:
    held = np.concatenate([filled(20, 100, seed).tensors()["category_BC"][:, 0] for seed in range(300)])
    counts, _ = np.histogram(held, bins=10, range=(0, 100))
    # 600 expected in each tenth of the stream; 5 deviations of a binomial are 110
    assert counts.sum() == 300 * 20
    assert np.abs(counts - 600).max() < 110


def test_what_belongs_together_stays_together() -> None:
    drawn = filled(20, 200).draw(64)
    assert drawn is not None
    assert drawn.logit_BT.tolist() == (drawn.dense_BD + 0.5).tolist()
    assert drawn.category_BC[:, 0].tolist() == drawn.label_BK[:, 0].tolist()


def test_the_draws_go_on_after_a_restore() -> None:
    one, other = filled(20, 200), Reservoir(20, seed=99)
    other.restore(one.tensors(), one.state())
    for reservoir in (one, other):
        reservoir.add(rows(200, 30))
    left, right = one.draw(16), other.draw(16)
    assert left is not None
    assert right is not None
    assert left.category_BC.tolist() == right.category_BC.tolist()


def test_nothing_is_drawn_from_an_empty_reservoir_or_without_capacity() -> None:
    assert Reservoir(10, 0).draw(4) is None
    assert filled(0, 10).draw(4) is None


def test_batches_join_in_order() -> None:
    assert concatenate([rows(3, 2), rows(0, 1)]).category_BC[:, 0].tolist() == [3, 4, 0]
