"""How this process uses its cores: in batches, by a thread that works ahead, by code that numba compiles."""

import gc
import logging
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from itertools import islice
from typing import Any, TypeVar

_LOG = logging.getLogger(__name__)

_T = TypeVar("_T")
Function = TypeVar("Function", bound=Callable[..., Any])

_SWITCH_SECONDS = 0.0002  # the default is 5 ms: a fifth of what a fast model takes for a batch
_NEW_OBJECTS = 100_000


def batched(items: Iterable[_T], size: int) -> Iterator[list[_T]]:
    """So many items at a time, the last as many as are left; `itertools.batched` of Python 3.12, in lists."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def made_ahead(items: Iterator[_T], count: int) -> Generator[_T]:
    """The same items; the next `count` of them are made in a thread while the last one is used.

    None ends them. When the iterator is closed nothing more is made.
    """
    if not count:
        yield from items
        return
    with ThreadPoolExecutor(1, thread_name_prefix="ahead") as maker:
        following = deque(maker.submit(next, items, None) for _ in range(count))
        try:
            while (item := following.popleft().result()) is not None:
                following.append(maker.submit(next, items, None))
                yield item
        finally:
            maker.shutdown(wait=False, cancel_futures=True)


@contextmanager
def throughput_first() -> Iterator[None]:
    """Within the block this process wastes little time on many small objects and several threads.

    A thread that computes in Python hands over to one that waits after 0.2 ms, and garbage that refers to itself, which
    is rare, is collected after 100,000 new objects in place of 700: over lists of values that took half of the reading.
    """
    switch_seconds, thresholds = sys.getswitchinterval(), gc.get_threshold()
    sys.setswitchinterval(_SWITCH_SECONDS)
    gc.set_threshold(_NEW_OBJECTS, *thresholds[1:])
    try:
        yield
    finally:
        sys.setswitchinterval(switch_seconds)
        gc.set_threshold(*thresholds)


def compiled(function: Function) -> Function:
    """`function` as machine code, kept beside it or in the user's cache, so that only the first start compiles.

    What one calls becomes a part of it: handing over a state of twenty arrays takes as long as the arithmetic on a row.
    Other threads go on meanwhile.
    """
    from numba import njit  # noqa: PLC0415 - most processes compile nothing

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
