"""Cuts what comes one by one into batches."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

_T = TypeVar("_T")


def batched(items: Iterable[_T], size: int) -> Iterator[list[_T]]:
    """So many items at a time, the last as many as are left; `itertools.batched` of Python 3.12, in lists."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
