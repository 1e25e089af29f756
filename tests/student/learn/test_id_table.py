"""The table of ids: the same as a dictionary in order of age, at any capacity."""

from collections import OrderedDict

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from student.learn.posterior.id_table import empty_table, find, take

KEYS = st.lists(st.integers(0, 12), max_size=60)


@given(capacity=st.integers(1, 8), keys=KEYS, batch=st.integers(1, 7))
@settings(max_examples=100, deadline=None)
def test_the_ids_seen_last_are_remembered_and_the_oldest_leaves_first(
    capacity: int, keys: list[int], batch: int
) -> None:
    table, expected = empty_table(capacity), OrderedDict[int, None]()
    hashes = np.array(keys, np.uint64) << np.uint64(32)  # all in one bucket
    for first in range(0, len(keys), batch):
        _, fresh_B = take(table, hashes[first : first + batch])
        for key, fresh in zip(hashes[first : first + batch].tolist(), fresh_B, strict=True):
            assert fresh == (key != 0 and key not in expected)
            if key:
                expected[key] = None
                expected.move_to_end(key)
                if len(expected) > capacity:
                    expected.popitem(last=False)
    assert table.key_N[table.slots_by_age()].tolist() == list(expected)
    slot_B = find(table, hashes)
    assert [slot > 0 for slot in slot_B] == [key in expected for key in hashes.tolist()]
    assert all(table.key_N[slot] == key for slot, key in zip(slot_B, hashes, strict=True) if slot)


def test_a_missing_value_is_no_id() -> None:
    table = empty_table(3)
    slot_B, fresh_B = take(table, np.zeros(2, np.uint64))
    assert slot_B.tolist() == [0, 0]
    assert not fresh_B.any()
    assert table.used[0] == 0
