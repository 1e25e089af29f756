"""The order in which several inputs are read."""

from hypothesis import given, settings
from hypothesis import strategies as st

from stream.positions import Merge

FEW = settings(deadline=None, max_examples=60)  # the machine may be busy

RUNS = st.lists(st.integers(0, 50), max_size=30)


def merged(a, b, caught_up=("a", "b")):
    merge = Merge(["a", "b"])
    for source, times in (("a", a), ("b", b)):
        for at, time in enumerate(times):
            merge.add(source, time, (source, at, time))
    return list(merge.take(caught_up)), merge


def test_a_record_waits_for_a_source_that_may_have_an_earlier_one():
    taken, merge = merged([1, 5], [3], caught_up=["a"])
    assert [time for _, _, time in taken] == [1, 3]
    assert merge.buffered("a") == 1


def test_equal_times_leave_in_the_order_of_the_sources():
    assert [source for source, _, _ in merged([4, 4], [4])[0]] == ["a", "a", "b"]


@FEW
@given(RUNS, RUNS)
def test_sorted_sources_leave_sorted_and_each_in_its_own_order(a, b):
    taken, _ = merged(sorted(a), sorted(b))
    assert [time for _, _, time in taken] == sorted(a + b)
    for source, times in (("a", sorted(a)), ("b", sorted(b))):
        assert [time for name, _, time in taken if name == source] == times


@FEW
@given(RUNS, RUNS, st.lists(st.integers(0, 60), max_size=5))
def test_the_order_does_not_depend_on_when_records_arrive(a, b, cuts):
    whole, _ = merged(a, b)
    merge, pieces, at = Merge(["a", "b"]), [], [0, 0]
    for cut in [*sorted(cuts), 10_000]:
        for which, (source, times) in enumerate((("a", a), ("b", b))):
            for i in range(at[which], min(cut, len(times))):
                merge.add(source, times[i], (source, i, times[i]))
            at[which] = max(at[which], min(cut, len(times)))
        caught_up = [source for source, times in (("a", a), ("b", b)) if cut >= len(times)]
        pieces += merge.take(caught_up)
    assert pieces == whole
