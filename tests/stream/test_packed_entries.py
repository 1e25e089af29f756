"""Entries of the state log in records: all of them, in their order, in records of bounded size."""

from hypothesis import given
from hypothesis import strategies as st

from stream.process import state_log
from stream.process.state_log import count_of, packed, unpacked

entries = st.lists(st.tuples(st.text(max_size=8), st.none() | st.binary(max_size=40)), max_size=30)


@given(entries)
def test_entries_come_back_as_they_were(entries):
    records = list(packed(entries))
    assert [entry for record in records for entry in unpacked(record)] == entries
    assert sum(map(count_of, records)) == len(entries)


def test_a_record_holds_what_fits_and_at_least_one_entry(monkeypatch):
    monkeypatch.setattr(state_log, "_MOST_BYTES", 100)
    records = list(packed([("small", bytes(30)), ("next", bytes(30)), ("large", bytes(500)), ("gone", None)]))
    assert [[key for key, _ in unpacked(record)] for record in records] == [["small", "next"], ["large"], ["gone"]]
