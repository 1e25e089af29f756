"""How arithmetic that goes row by row is compiled: by numba, to the same bits on each start."""

import logging
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

from numba import njit

_LOG = logging.getLogger(__name__)

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """`function` as machine code, kept beside it or in the user's cache, so that only the first start compiles.

    What one calls becomes a part of it: handing over a state of twenty arrays takes as long as the arithmetic on a row.
    Other threads go on meanwhile.
    """
    options: Any = {"forceinline": True, "nogil": True}
    try:
        kept: Any = njit(cache=True, **options)(function)
    except RuntimeError:  # neither folder can be written
        _warn_of_each_start()
        kept = njit(**options)(function)
    machine_code: Function = kept
    return machine_code


@cache
def _warn_of_each_start() -> None:
    """Once in a process."""
    _LOG.warning(
        "what is compiled can be kept neither beside the code nor in the home folder, so each start takes seconds to "
        "minutes longer; let NUMBA_CACHE_DIR name a folder that this user alone can write"
    )
