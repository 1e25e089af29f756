"""The state log against a dict: whatever is written, deleted, crashed and trimmed, the same state, in bounded bytes."""

from hypothesis import given, settings
from hypothesis import strategies as st

from stream.join.log_cleaner import BEGINS_AT, Record, saved_state

FLOOR_BYTES = 200
FEW = settings(deadline=None, max_examples=100)


class Log:
    """A partition of Kafka with one writer, which is read anew after each crash."""

    def __init__(self, floor_bytes: int = FLOOR_BYTES) -> None:
        self.floor_bytes = floor_bytes
        self.start = self.end = 0
        self.records: list[Record] = []
        self.state: dict[str, bytes] = {}
        self.largest_state = 0
        self.restart()

    def restart(self) -> None:
        """Read the log as it is now, and go on from it."""
        saved = saved_state(self.records, self.floor_bytes)
        assert saved.entries == self.state
        assert self.start <= saved.begins_at
        self.cleaner = saved.cleaner

    def write(
        self, changes: dict[str, bytes | None], *, crashes: bool = False, is_told: bool = True, together: int = 1
    ) -> None:
        """One transaction, which takes effect whole, or not at all when the writer crashes.

        `is_told`: whether the writer learns its records' offsets. `together`: entries of a Kafka record.
        """
        changed = self.state | changes
        written = self.cleaner.append(list(changes.items()), lambda key: self.state[key])
        largest = max((size(*one) for one in self.state.items()), default=0)
        assert bytes_of(written) <= 1.5 * bytes_of(changes.items()) + largest + len(BEGINS_AT) + 20
        if crashes:
            self.end += len(written) + 1  # aborted records and a marker have offsets
            self.restart()
            return
        offsets = [self.end + at // together for at in range(len(written))]
        self.records += [Record(offset, *entry) for offset, entry in zip(offsets, written, strict=True)]
        self.end = offsets[-1] + 2
        self.state = {key: value for key, value in changed.items() if value is not None}
        self.largest_state = max(self.largest_state, bytes_of(self.state.items()))
        if (before := self.cleaner.committed(offsets if is_told else [-1] * len(written))) is not None:
            self.delete(before)

    def delete(self, before: int) -> None:
        """What a broker does for `delete_records`."""
        self.start = before
        self.records = [record for record in self.records if record.offset >= before]

    def size(self) -> int:
        return sum(size(record.key, record.value) for record in self.records)


def size(key, value):
    return len(key) + len(value or b"")


def bytes_of(entries):
    return sum(size(*entry) for entry in entries)


keys = st.sampled_from([f"k{n}" for n in range(12)])
values = st.none() | st.binary(max_size=60)
changes = st.dictionaries(keys, values, min_size=1, max_size=4)
fates = st.sampled_from([{}, {"together": 2}, {"together": 1_000}, {"crashes": True}, {"is_told": False}])
steps = st.tuples(changes, fates)


@FEW
@given(st.lists(steps, max_size=80), st.sampled_from([0, FLOOR_BYTES]))
def test_the_log_adds_up_to_what_was_written_whatever_crashes_and_is_trimmed(steps, floor_bytes):
    log = Log(floor_bytes)
    for changes, fate in steps:
        log.write(changes, **fate)
    log.restart()


@FEW
@given(st.lists(steps, max_size=80), st.integers(0, 30))
def test_the_log_stays_within_a_constant_multiple_of_the_state(steps, cold):
    """Some entries never change: they must be carried along."""
    log = Log()
    for number in range(cold):
        log.write({f"cold{number}": b"x" * 40})
    for changes, fate in steps:
        log.write(changes, **fate)
        names = 40 * len(log.records)  # what `begins_at` adds to each transaction, at most
        assert log.size() <= 6 * log.largest_state + 2 * FLOOR_BYTES + 4 * 300 + names


def test_a_large_state_at_rest_is_carried_along_a_little_at_a_time():
    log = Log()
    for number in range(200):
        log.write({f"cold{number}": bytes(100)})
    largest = log.start
    for number in range(3_000):
        log.write({"hot": b"%050d" % number})
        largest = max(largest, log.size())
    assert largest < 5 * (bytes_of(log.state.items()) + FLOOR_BYTES)
    assert log.start > 3_000
    log.restart()


def test_a_state_that_shrinks_leaves_a_log_that_shrinks():
    log = Log()
    for number in range(300):
        log.write({f"k{number}": bytes(100)})
    log.write(dict.fromkeys(log.state))
    log.write({"last": b"x"})
    assert log.size() < 20 * 300  # what is left are the keys of what was deleted
    for _ in range(1_000):
        log.write({"last": b"x"})
    assert log.size() < 4 * FLOOR_BYTES


def test_a_log_of_an_earlier_version_goes_on_from_its_last_snapshot():
    old = [("a", b"1"), ("b", b"2"), ("snapshot", b""), ("b", b"3"), ("position", b"{}"), ("b", None), ("c", b"4")]
    log = Log()
    log.records = [Record(offset, *entry) for offset, entry in enumerate(old)]
    log.end, log.state = len(old), {"position": b"{}", "c": b"4"}
    for start in (0, 2):
        log.delete(start)
        log.restart()
    for number in range(100):
        log.write({"position": b"%020d" % number})
    assert log.start > 2
    log.restart()


def test_a_log_whose_beginning_is_gone_says_where_its_state_began():
    log = Log()
    for number in range(50):
        log.write({"a": b"%040d" % number, "b": bytes(40)} if number == 0 else {"a": b"%040d" % number})
    begins_at = saved_state(log.records, 0).begins_at
    log.delete(begins_at + 1)
    assert saved_state(log.records, 0).begins_at == begins_at < log.start
    log.delete(log.end)
    assert saved_state(log.records, 0).begins_at == 0 < log.start
