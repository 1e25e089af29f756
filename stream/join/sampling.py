"""Sampling: which negatives of a log become examples, and for how many such events each of them stands.

Negatives that are drawn, for a log without any: stream/join/drawn.py.

An example is a negative when no binary task of it has the label 1. Whether it is kept follows from a hash of its
impression's id alone: a replay, a restart or another number of partitions keeps the same ones, and of a smaller share
all are among those of a larger one.
"""

from collections.abc import Sequence

import mmh3
from pydantic import Field

from runtime.frozen_model import FrozenModel
from stream.events import Example
from stream.tasks import TaskSpec

_SEED = 0x5A3D  # so that the draw has nothing to do with other hashes of the same id, such as that of its partition
_HASHES = 2**32

MOST_DRAWN = 50
"""Negatives that may be drawn beside one impression."""


class SamplingConfig(FrozenModel):
    """Which negatives become examples; see docs/sampling.md. Without this table every impression does."""

    one_negative_of: int = Field(
        default=1,
        ge=1,
        le=10_000,
        description="one of this many negatives (impressions without a 1 in any binary task) becomes an example and "
        "stands for all of them; 1: each becomes one",
    )
    drawn_negatives: int = Field(
        default=0,
        ge=0,
        le=MOST_DRAWN,
        description="negatives that are drawn for each impression with a 1 in a binary task: its user with other "
        "items that were shown before; for a log that has only positives. An impression whose own item was not shown "
        "before is left out",
    )
    drawn_by_popularity: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="the chance that an item is drawn is proportional to how often it was shown lately, to this "
        "power; 0: equal for all items; 1: as often as they are shown",
    )

    @property
    def recipe(self) -> str:
        """How negatives are drawn, in words."""
        return f"popularity^{self.drawn_by_popularity:g}" if self.drawn_by_popularity else "uniform"


class Sampling:
    """Keeps a share of the negatives; where negatives are drawn, only what stands beside some."""

    def __init__(self, config: SamplingConfig, tasks: Sequence[TaskSpec]) -> None:
        self._one_of, self._draws = config.one_negative_of, config.drawn_negatives > 0
        self._binary = [task.name for task in tasks if task.kind == "binary"]

    def kept(self, example: Example, *, is_alone: bool) -> Example | None:
        """The example with its weight; None where sampling leaves it out. What was drawn stays.

        `is_alone`: nothing was drawn beside it. With nothing to be compared with it would say yes of every new item.
        """
        if self._draws and is_alone:
            return None
        if self._one_of == 1 or example.sampled or any(example.labels[name] for name in self._binary):
            return example
        if not is_drawn(example.impression_id, self._one_of):
            return None
        return Example.of_checked({**example.__dict__, "weight": self._one_of})


def is_drawn(impression_id: str, one_of: float) -> bool:
    """Whether this is the one impression of so many that is kept if it is a negative."""
    number = mmh3.hash(impression_id.encode("utf-8", "surrogatepass"), _SEED, signed=False)
    return number * one_of < _HASHES
