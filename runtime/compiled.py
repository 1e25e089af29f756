"""How arithmetic that goes row by row is compiled: by numba, to the same bits on each start."""

from collections.abc import Callable
from typing import Any, TypeVar

from numba import njit

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """`function` as machine code, kept beside it or in the user's cache, so that only the first start compiles.

    What one calls becomes a part of it: handing over a state of twenty arrays takes as long as the arithmetic on a row.
    Other threads go on meanwhile.
    """
    options: Any = {"forceinline": True, "nogil": True}
    try:
        kept: Any = njit(cache=True, **options)(function)
    except RuntimeError:  # neither folder can be written: then each start compiles, in some seconds
        kept = njit(**options)(function)
    machine_code: Function = kept
    return machine_code
