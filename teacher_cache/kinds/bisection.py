"""Finds the rows of a failed call that the teacher cannot compute, or that it is not the rows.

A call that fails for want of time, memory or a connection fails whatever its rows are: it is to be made again. Any
other failure may be the rows': halves are tried, down to single rows.
"""

from collections.abc import Callable, Sequence

from runtime.errors import ServiceUnavailableError, first_line

_TRIES = 3
"""Calls of a single row that must all fail before the row is to blame."""

_WITHOUT_MEMORY = ("allocat", "out of memory", "bad_alloc")
"""In the texts of onnxruntime's errors, which have one class for everything."""


class TeacherUnavailableError(ServiceUnavailableError):
    """A call of the teacher failed for another reason than its rows; the same call may succeed later."""

    def __init__(self, message: str, retry_after_seconds: float = 0.0) -> None:
        self.retry_after_seconds = retry_after_seconds
        super().__init__(message)


def failing_rows(
    score: Callable[[Sequence[int]], object],
    rows: Sequence[int],
    error: Exception,
    score_sound: Callable[[], object] | None = None,
) -> list[int]:
    """Those of `rows` with which alone `score` fails again and again, after it has failed with `error` for all of them.

    TeacherUnavailableError when it fails for another reason: with none of them alone, or also with `score_sound`, a row
    that was computed before.
    """
    _raise_if_unavailable(error)
    if score_sound is not None and _fails_always(lambda _: score_sound(), rows):
        raise _unavailable(error) from error
    found = _failing(score, rows)
    if not found:
        raise _unavailable(error) from error
    return found


def _fails_always(score: Callable[[Sequence[int]], object], rows: Sequence[int]) -> bool:
    return all(_fails(score, rows) for _ in range(_TRIES))


def _failing(score: Callable[[Sequence[int]], object], rows: Sequence[int]) -> list[int]:
    if len(rows) == 1:
        return list(rows) if _fails_always(score, rows) else []
    middle = len(rows) // 2
    return [row for half in (rows[:middle], rows[middle:]) if _fails(score, half) for row in _failing(score, half)]


def _fails(score: Callable[[Sequence[int]], object], rows: Sequence[int]) -> bool:
    try:
        score(rows)
    except Exception as error:  # noqa: BLE001 - the teachers' errors share no class
        _raise_if_unavailable(error)
        return True
    return False


def _raise_if_unavailable(error: Exception) -> None:
    text = str(error).lower()
    if isinstance(error, MemoryError | OSError) or any(words in text for words in _WITHOUT_MEMORY):
        raise _unavailable(error) from error


def _unavailable(error: Exception) -> TeacherUnavailableError:
    if isinstance(error, TeacherUnavailableError):
        return error
    return TeacherUnavailableError(f"the teacher's call failed ({type(error).__name__}): {first_line(error)}")
