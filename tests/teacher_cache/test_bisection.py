"""Which rows a failed call is to blame for, and when none is."""

from itertools import cycle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from teacher_cache.kinds.computed_teacher import TeacherUnavailableError, failing_rows

_OF_ROWS = RuntimeError("indices element out of data bounds")
_OF_THE_CALL = [
    TimeoutError("timed out"),
    ConnectionResetError("reset"),
    MemoryError(),
    RuntimeError("[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Failed to allocate memory for requested buffer"),
    RuntimeError("std::bad_alloc"),
]


class _Teacher:
    """Fails for `bad` rows, and at the calls of these numbers for another reason."""

    def __init__(self, bad=(), fails_at=(), error=_OF_ROWS):
        self._bad, self._fails_at, self._error = set(bad), set(fails_at), error
        self.calls = 0

    def __call__(self, rows):
        self.calls += 1
        if self.calls in self._fails_at:
            raise self._error
        if self._bad & set(rows):
            raise _OF_ROWS


@given(rows=st.integers(1, 200), data=st.data())
def test_the_rows_that_fail_alone_are_found_and_no_others(rows, data):
    bad = data.draw(st.sets(st.integers(0, rows - 1), min_size=1, max_size=5))
    teacher = _Teacher(bad)
    assert failing_rows(teacher, range(rows), _OF_ROWS) == sorted(bad)
    assert teacher.calls <= len(bad) * (2 * 8 + 3)


@pytest.mark.parametrize("error", _OF_THE_CALL, ids=str)
def test_a_call_that_fails_for_want_of_something_blames_no_row(error):
    teacher = _Teacher(bad=[3])
    with pytest.raises(TeacherUnavailableError, match=r"the teacher's call failed"):
        failing_rows(teacher, range(8), error)
    assert teacher.calls == 0  # it is not asked at once again
    with pytest.raises(TeacherUnavailableError):
        failing_rows(_Teacher(bad=[3], fails_at=[2], error=error), range(8), _OF_ROWS)


def test_a_failure_that_does_not_come_again_blames_no_row():
    with pytest.raises(TeacherUnavailableError, match="out of data bounds"):
        failing_rows(_Teacher(), range(8), _OF_ROWS)
    assert failing_rows(_Teacher(bad=[5], fails_at=[1, 3]), range(8), _OF_ROWS) == [5]


def test_when_every_row_fails_a_row_that_was_sound_decides():
    rows = range(4)
    assert failing_rows(_Teacher(bad=rows), rows, _OF_ROWS) == [0, 1, 2, 3]
    assert failing_rows(_Teacher(bad=rows), rows, _OF_ROWS, lambda: None) == [0, 1, 2, 3]
    sound = cycle([_OF_ROWS])

    def fails():
        raise next(sound)

    with pytest.raises(TeacherUnavailableError):
        failing_rows(_Teacher(bad=rows), rows, _OF_ROWS, fails)
