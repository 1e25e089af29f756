"""Processes that read one topic together: each reads its own partitions, and all get every record."""

from collections.abc import Sequence
from typing import Protocol


class Ranks(Protocol):
    """One of the processes, its *rank*, and how it reaches the others."""

    @property
    def rank(self) -> int:
        """Which of them this is, from 0."""
        ...

    @property
    def ranks(self) -> int:
        """How many there are."""
        ...

    def gather(self, messages: Sequence[bytes]) -> list[list[bytes]]:
        """The messages of every rank, in the order of ranks; all ranks call it together and get the same."""
        ...


class OneRank:
    """A process that reads everything itself."""

    rank = 0
    ranks = 1

    def gather(self, messages: Sequence[bytes]) -> list[list[bytes]]:
        """Its own messages."""
        return [list(messages)]


ONE_RANK = OneRank()
