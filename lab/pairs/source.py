"""What a pair's teacher is trained on: the `source/` folder of a project, rows of the source domain alone.

Shapes: N rows in time order, U users, I items.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from runtime.errors import InvalidInputError

_FOLDER = "source"
_DESIGN = "design.json"
_TABLES = "tables.npz"


class TeacherInput(BaseModel):
    """One input of the teacher: a code in [0, codes), or a vector of `width` numbers when `codes` is None.

    `history` marks what is known of a source user alone, its id included: production models see users without it, so
    training replaces all of it by `default` in a share of the rows.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    table: Literal["rows", "users", "items"]
    codes: int | None = None
    width: int = 1
    logarithm: bool = False
    history: bool = False
    default: float = 0.0


class TeacherHead(BaseModel):
    """One output of the teacher."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    kind: Literal["binary", "regression"]


class TeacherDesign(BaseModel):
    """The teacher's signature and the shape of its network."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    inputs: list[TeacherInput] = Field(min_length=1)
    heads: list[TeacherHead] = Field(min_length=1)
    trunk: list[int] = [64, 32]
    embedding_dim: int = 8
    epochs: int = 2
    batch_rows: int = 4096
    learning_rate: float = 0.01


class Source(NamedTuple):
    """Rows of the source domain: a row's user and item are row numbers of their tables.

    `tables` has ``rows.user`` and ``rows.item`` [N], for each input ``TABLE.NAME`` [N, U or I] (vectors: [., width]),
    and for each head ``labels.NAME`` [N]; a regression's NaN is no label.
    """

    design: TeacherDesign
    tables: Mapping[str, NDArray[np.generic]]

    @property
    def rows(self) -> int:
        """N."""
        return len(self.tables["rows.user"])

    def oldest(self, share: float) -> "Source":
        """Its first rows by time: this share of them, in (0, 1]."""
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
    """Read `project`/source; InvalidInputError when the folder has none."""
    folder = project / _FOLDER
    if not (folder / _TABLES).exists():
        raise InvalidInputError(f"{folder}: no rows to train a teacher on; write the pair with 'graft pair make'")
    design = TeacherDesign.model_validate_json((folder / _DESIGN).read_text(encoding="utf-8"))
    with np.load(folder / _TABLES, allow_pickle=False) as tables:
        return Source(design, dict(tables))
