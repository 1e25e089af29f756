"""An id is new for its first ten examples."""

from collections.abc import Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from student.evaluate.newness import NEW_EXAMPLES, SeenCounts


def hashes_of(hashes: Sequence[int]) -> NDArray[np.uint64]:
    return np.array(hashes, np.uint64)


HASHES = st.lists(st.integers(0, 2**64 - 1) | st.sampled_from([0, 1, 1 << 16, 2**64 - 1]), max_size=80)


def test_an_id_is_new_in_its_first_ten_examples_also_within_one_batch() -> None:
    counts = SeenCounts()
    assert counts.update(hashes_of([7, 7, 7])).tolist() == [True] * 3
    assert counts.update(hashes_of([7] * 10)).tolist() == [True] * 7 + [False] * 3
    assert counts.update(hashes_of([8])).tolist() == [True]


@given(HASHES, st.integers(1, 9))
def test_where_batches_are_cut_does_not_matter(hashes: list[int], size: int) -> None:
    whole, cut = SeenCounts(), SeenCounts()
    parts = [cut.update(hashes_of(hashes[i : i + size])) for i in range(0, len(hashes), size)]
    assert whole.update(hashes_of(hashes)).tolist() == [new for part in parts for new in part]


@given(HASHES)
def test_a_familiar_id_is_never_taken_for_new(hashes: list[int]) -> None:
    counts, seen = SeenCounts(), dict.fromkeys(hashes, 0)
    for one, new in zip(hashes, counts.update(hashes_of(hashes)), strict=True):
        assert not (new and seen[one] >= NEW_EXAMPLES)
        seen[one] += 1


def test_of_10_000_ids_hardly_any_new_one_is_taken_for_familiar_and_memory_stays() -> None:
    counts = SeenCounts()
    ids = np.random.default_rng(5).integers(0, 2**63, 10_000).astype(np.uint64)
    size = counts.counts.nbytes
    for _ in range(NEW_EXAMPLES):
        assert counts.update(ids).mean() > 0.999
    assert not counts.update(ids).any()
    assert counts.counts.nbytes == size == 256 * 1024
