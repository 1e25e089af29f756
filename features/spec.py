"""The one feature spec that builds both the learner's and the scorer's vectors.

Compiled from graft.toml and Feast's registry by `graft features apply`, written beside the registry and into every
version, so that neither the learner nor the scorer imports Feast.

Shapes: B rows, D dense columns (the embedding features' elements included), C categorical columns.
"""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property, lru_cache
from itertools import repeat
from typing import Any, Literal, NamedTuple

import mmh3
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

Value = int | float | str | list[float] | None
Source = Literal["user", "item", "context", "user_id", "item_id"]
Role = Literal["dense", "embedding", "categorical", "passthrough"]

ITEM_SOURCES: frozenset[Source] = frozenset({"item", "item_id"})
"""The features that each item of a request has its own value of."""

REQUEST_SOURCES: frozenset[Source] = frozenset({"user", "user_id", "context"})
"""Those that all items of a request share."""

_LARGEST = np.finfo(np.float32).max

MISSING_HASH = 0
"""The hash of a missing categorical value without a default; no present value has it."""


class FeatureBatch(NamedTuple):
    """What a student sees of B rows: finite float32 and the categorical values' 64-bit hashes (0: missing)."""

    dense_BD: NDArray[np.float32]
    categorical_BC: NDArray[np.uint64]


class Feature(BaseModel):
    """One value of a row. `view` and `feature` name it in Feast when `source` is user or item.

    A `passthrough` feature is for the teacher's domain map alone: read and logged like the others, not encoded.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    source: Source
    role: Role
    dtype: Literal["int", "float", "str", "float_list"]
    default: int | float | str | list[float] | None
    view: str = ""
    feature: str = ""
    value_type: str = ""
    """Feast's ValueType, by which the reader decodes the stored bytes: FLOAT, DOUBLE, INT32, INT64, STRING, ..."""
    profile_of: str = Field(default="", exclude_if=lambda value: not value)  # so that it changes no other spec's id
    """The teacher's task or vector whose mean it is; "" for a feature that is not the teacher's. A control is blind to
    the teacher's features."""

    @property
    def width(self) -> int:
        """Dense columns that it fills."""
        if self.role in ("categorical", "passthrough"):
            return 0
        return len(self.default) if isinstance(self.default, list) else 1


class FeatureSpec(BaseModel):
    """Every feature in its order, and how Feast keys its entities in Redis."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    feast_project: str
    user_join_key: str
    item_join_key: str
    user_id_type: Literal["int", "str"]
    item_id_type: Literal["int", "str"]
    entity_key_serialization_version: int
    features: tuple[Feature, ...]

    @cached_property
    def spec_id(self) -> str:
        """Identifies what a logged row means: specs of one id have the same columns. 16 hexadecimal digits."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:16]

    @cached_property
    def dense(self) -> tuple[Feature, ...]:
        """The features of `dense_BD`, in order: dense ones and embeddings as they stand in `features`."""
        return tuple(f for f in self.features if f.role in ("dense", "embedding"))

    @cached_property
    def _dense_widths(self) -> tuple[tuple[Feature, int], ...]:
        return tuple((f, f.width) for f in self.dense)

    @cached_property
    def of_item(self) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Which of the D dense and of the C categorical columns each item of a request has its own value in."""
        dense_D = [f.source in ITEM_SOURCES for f, width in self._dense_widths for _ in range(width)]
        return np.array(dense_D, bool), np.array([f.source in ITEM_SOURCES for f in self.categorical], bool)

    @cached_property
    def categorical(self) -> tuple[Feature, ...]:
        """The features of `categorical_BC`, in order."""
        return tuple(f for f in self.features if f.role == "categorical")

    @cached_property
    def dense_names(self) -> tuple[str, ...]:
        """One name for each of the D dense columns; an embedding's elements are numbered."""
        names: list[str] = []
        for f in self.dense:
            names += [f"{f.name}[{i}]" for i in range(f.width)] if f.role == "embedding" else [f.name]
        return tuple(names)

    def columns_of(self, rows: Sequence[Sequence[Value]]) -> dict[str, list[Value]]:
        """Logged rows, each in the order of `features`, as one list of raw values per feature name."""
        size = len(self.features)
        if wrong := set(map(len, rows)) - {size}:
            raise ValueError(f"a row of spec {self.spec_id} has {size} features, got {min(wrong)}")
        columns = zip(*rows, strict=True) if rows else ((),) * size
        return {f.name: list(column) for f, column in zip(self.features, columns, strict=True)}

    def rows_of(self, columns: Mapping[str, Sequence[Value]]) -> list[list[Value]]:
        """Raw values per feature name as rows in the order of `features`: what an example logs."""
        return [list(row) for row in zip(*(columns[f.name] for f in self.features), strict=True)]

    def encode(
        self,
        columns: Mapping[str, Sequence[Value]],
        size: int | None = None,
        sources: Collection[Source] = ITEM_SOURCES | REQUEST_SOURCES,
    ) -> FeatureBatch:
        """Raw values per feature name as a FeatureBatch of `size` rows. A None becomes the feature's default.

        A column has a value per row, or one that all rows share; without `size` the first column has all rows. The
        columns of features of other sources are 0. The only encoder: learner and scorer both call it, which makes their
        vectors bit-equal.
        """
        if size is None:
            size = len(columns[self.features[0].name])
        return FeatureBatch(
            self._encode_dense(columns, size, sources), self._encode_categorical(columns, size, sources)
        )

    def _encode_dense(
        self, columns: Mapping[str, Sequence[Value]], size: int, sources: Collection[Source]
    ) -> NDArray[np.float32]:
        with np.errstate(over="ignore"):  # a double beyond float32 is infinite here, and clipped below
            if size == 1:
                dense_bd = np.array([self._dense_row(columns, sources)], np.float32)
            else:
                dense_bd = np.zeros((size, len(self.dense_names)), np.float32)
                at = 0
                for f, width in self._dense_widths:
                    if f.source in sources:
                        values = _filled(f, columns[f.name])
                        dense_bd[:, at : at + width] = np.asarray(values, np.float32).reshape(len(values), width)
                    at += width
        return np.minimum(np.maximum(dense_bd, -_LARGEST, out=dense_bd), _LARGEST, out=dense_bd)

    def _dense_row(self, columns: Mapping[str, Sequence[Value]], sources: Collection[Source]) -> list[float]:
        """The dense columns of a single row, which numpy takes sooner in one piece than feature by feature."""
        row: list[Any] = []
        for f, width in self._dense_widths:
            if f.source not in sources:
                row += [0.0] * width
                continue
            (value,) = columns[f.name]
            value = f.default if value is None else value
            if isinstance(value, list):
                row += value
            else:
                row.append(value)
        return row

    def _encode_categorical(
        self, columns: Mapping[str, Sequence[Value]], size: int, sources: Collection[Source]
    ) -> NDArray[np.uint64]:
        categorical_bc = np.zeros((size, len(self.categorical)), np.uint64)
        for i, f in enumerate(self.categorical):
            if f.source in sources:
                categorical_bc[:, i] = list(map(hash_category, repeat(f.name), _filled(f, columns[f.name])))
        return categorical_bc


def _filled(feature: Feature, values: Sequence[Value]) -> list[Any]:
    return [feature.default if value is None else value for value in values]


@lru_cache(maxsize=1 << 18, typed=True)  # typed: 1 and 1.0 are equal as keys, and of different digits
def hash_category(name: str, value: float | str | None) -> int:
    """The 64-bit hash of one categorical value, the same in every process; the feature's name is its salt.

    Integers and strings of the same digits hash alike, so an id's type in JSON does not matter. MISSING_HASH for None.
    """
    if value is None:
        return MISSING_HASH
    if value == 0.0:
        value = abs(value)  # -0.0 and 0.0 are equal as keys of the cache
    return mmh3.hash64(f"{name}={value}".encode("utf-8", "surrogatepass"), signed=False)[0] or 1
