"""Sampling: which negatives of a log become examples, and for how many such events each of them stands.

An example is a negative when no binary task of it has the label 1. Whether it is kept follows from a hash of its
impression's id alone: a replay, a restart or another number of partitions keeps the same ones, and of a smaller share
all are among those of a larger one.
"""

from collections.abc import Sequence

import mmh3
from pydantic import BaseModel, ConfigDict, Field

from stream.events import Example
from stream.tasks import TaskSpec

_SEED = 0x5A3D  # so that the draw has nothing to do with other hashes of the same id, such as that of its partition
_HASHES = 2**32


class SamplingConfig(BaseModel):
    """Which negatives become examples; see docs/sampling.md. Without this table every impression does."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    one_negative_of: int = Field(
        default=1,
        ge=1,
        le=10_000,
        description="of so many impressions without a 1 in any binary task one becomes an example, which stands for "
        "all of them; 1: every one does",
    )


class Sampling:
    """Keeps a share of the negatives."""

    def __init__(self, config: SamplingConfig, tasks: Sequence[TaskSpec]) -> None:
        self._one_of = config.one_negative_of
        self._binary = [task.name for task in tasks if task.kind == "binary"]

    def kept(self, example: Example) -> Example | None:
        """The example with its weight; None where sampling leaves it out."""
        if self._one_of == 1 or any(example.labels[name] for name in self._binary):
            return example
        if not is_drawn(example.impression_id, self._one_of):
            return None
        return Example.of_checked({**example.__dict__, "weight": self._one_of})


def is_drawn(impression_id: str, one_of: int) -> bool:
    """Whether this is the one impression of so many that is kept if it is a negative."""
    number = mmh3.hash(impression_id.encode("utf-8", "surrogatepass"), _SEED, signed=False)
    return number * one_of < _HASHES
