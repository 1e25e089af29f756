"""Where compiled code is kept."""

from typing import Any

import numba
import pytest

from runtime import compiled


def test_code_that_can_be_kept_nowhere_is_compiled_all_the_same_and_that_is_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def nowhere_to_keep(**options: Any) -> Any:
        if options.get("cache"):
            raise RuntimeError("cannot cache function: no locator available")  # as numba does
        return numba.njit(**options)

    monkeypatch.setattr(compiled, "njit", nowhere_to_keep)
    compiled._warn_of_each_start.cache_clear()
    twice, thrice = compiled.compiled(lambda x: 2 * x), compiled.compiled(lambda x: 3 * x)
    assert (twice(2), thrice(2)) == (4, 6)
    (said,) = caplog.messages
    assert "NUMBA_CACHE_DIR" in said
