"""What a teacher is trained on: its design, and rows of the source domain alone.

Shapes: N rows in time order, U users, I items.
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from runtime.frozen_model import FrozenModel
from stream.tasks import TaskKind

InputTable = Literal["rows", "users", "items"]
"""Where an input's values are: one for each row, user or item."""


class DesignInput(FrozenModel):
    """One input of the teacher: a code in [0, codes), or a vector of `width` numbers when `codes` is None.

    `history` marks what is known of a source user alone, its id included: production models see users without it, so
    training replaces all of it by `default` in a share of the rows.
    """

    name: str
    table: InputTable
    codes: int | None = None
    width: int = 1
    logarithm: bool = False
    history: bool = False
    default: float = 0.0


class DesignTaste(FrozenModel):
    """The inner product of a vector for each user and one for each item, which is added to every head.

    `user` and `item` are inputs of codes. An unknown user, code 0, has a vector of zeros. The item's vector is an
    output of the teacher, of that name. The trunk does not see the user: it would learn there what the vectors lack.
    """

    user: str
    item: str
    output: str
    width: int = 8
    decay: float = 0.01
    """Times the mean square of both vectors, in the loss."""


class TeacherDesign(FrozenModel):
    """The teacher's signature and the shape of its network; `heads` has each output's name and kind."""

    inputs: list[DesignInput] = Field(min_length=1)
    heads: dict[str, TaskKind] = Field(min_length=1)
    taste: DesignTaste | None = None
    trunk: list[int] = Field(default=[64, 32])
    embedding_dim: int = 8
    epochs: int = 2
    batch_rows: int = 4096
    learning_rate: float = 0.01
    scale_labels: bool = False
    """Whether regressions are learnt with a mean of 0 and a deviation of 1; outputs are in the label's unit anyway."""

    @property
    def columns(self) -> list[DesignInput]:
        """The inputs that the trunk sees."""
        return [spec for spec in self.inputs if self.taste is None or spec.name != self.taste.user]


class Source(NamedTuple):
    """Rows of the source domain: a row's user and item are row numbers of their tables.

    `tables` has ``rows.user`` and ``rows.item`` [N], for each input ``TABLE.NAME`` [N, U or I] (vectors: [., width]),
    and for each head ``labels.NAME`` [N]; a regression's NaN is no label.
    """

    design: TeacherDesign
    tables: Mapping[str, NDArray[np.generic]]

    @property
    def rows(self) -> int:
        """How many rows there are, N."""
        return len(self.tables["rows.user"])


class Split(NamedTuple):
    """How many rows, the earliest ones, are learnt, and how many after them judge each epoch; the rest is held out."""

    learnt: int
    judged: int = 0

    @property
    def used(self) -> int:
        """The rows that are not held out."""
        return self.learnt + self.judged
