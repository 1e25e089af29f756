"""What a pair's teacher is trained on: the `source/` folder of a project, rows of the source domain alone.

Shapes: N rows in time order, U users, I items.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from runtime.errors import InvalidInputError
from stream.tasks import TaskKind

_FOLDER = "source"
_DESIGN = "design.json"
_TABLES = "tables.npz"


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TeacherInput(_Record):
    """One input of the teacher: a code in [0, codes), or a vector of `width` numbers when `codes` is None.

    `history` marks what is known of a source user alone, its id included: production models see users without it, so
    training replaces all of it by `default` in a share of the rows.
    """

    name: str
    table: Literal["rows", "users", "items"]
    codes: int | None = None
    width: int = 1
    logarithm: bool = False
    history: bool = False
    default: float = 0.0


class TeacherTaste(_Record):
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


class TeacherDesign(_Record):
    """The teacher's signature and the shape of its network; `heads` has each output's name and kind."""

    inputs: list[TeacherInput] = Field(min_length=1)
    heads: dict[str, TaskKind] = Field(min_length=1)
    taste: TeacherTaste | None = None
    trunk: list[int] = [64, 32]
    embedding_dim: int = 8
    epochs: int = 2
    batch_rows: int = 4096
    learning_rate: float = 0.01

    @property
    def columns(self) -> list[TeacherInput]:
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

    def oldest(self, share: float) -> "Source":
        """The source with its first rows by time alone: a share of them in (0, 1]."""
        count = round(share * self.rows)
        by_row = {name for name in self.tables if name.startswith(("rows.", "labels."))}
        return self._replace(tables={n: t[:count] if n in by_row else t for n, t in self.tables.items()})


def save_source(source: Source, project: Path) -> None:
    """Write `project`/source."""
    folder = project / _FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _DESIGN).write_text(source.design.model_dump_json(indent=2) + "\n", encoding="utf-8")
    np.savez(folder / _TABLES, **source.tables)  # type: ignore[arg-type]


def load_source(project: Path) -> Source:
    """Read `project`/source; InvalidInputError when the folder has none that this graft can read."""
    folder = project / _FOLDER
    if not (folder / _TABLES).exists():
        raise InvalidInputError(f"{folder}: no rows to train a teacher on; write the pair with 'graft pair make'")
    try:
        design = TeacherDesign.model_validate_json((folder / _DESIGN).read_text(encoding="utf-8"))
    except ValidationError:
        raise InvalidInputError(f"{folder / _DESIGN}: written by another graft; make the pair again") from None
    with np.load(folder / _TABLES, allow_pickle=False) as tables:
        return Source(design, dict(tables))


def count_before(user_N: NDArray[np.integer]) -> NDArray[np.float32]:
    """How many rows of its user came before each row, [N]."""
    count_N: NDArray[np.float32] = pd.Series(user_N).groupby(user_N).cumcount().to_numpy(np.float32)
    return count_N


def mean_before(user_N: NDArray[np.integer], value_N: NDArray[Any], first: float) -> NDArray[np.float32]:
    """The mean value of its user's rows before each row, [N]; `first` where there are none."""
    value_N = value_N.astype(np.float64)
    total_N = pd.Series(value_N).groupby(user_N).cumsum().to_numpy() - value_N
    count_N = count_before(user_N)
    return np.where(count_N > 0, total_N / np.maximum(count_N, 1), first).astype(np.float32)
