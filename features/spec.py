"""The one feature spec that builds both the learner's and the scorer's vectors.

Compiled from graft.toml and Feast's registry by `graft features apply`, written beside the registry and into every
version, so that neither the learner nor the scorer imports Feast.

Users and items are known by an id, an int or a str each.

Shapes: B rows, D dense columns (the embedding features' elements included), C categorical columns.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property, lru_cache
from itertools import repeat
from pathlib import Path
from typing import Any, Literal, NamedTuple

import mmh3
import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from runtime.errors import GraftError
from runtime.folder import replacing
from runtime.frozen_model import FrozenModel

_INT64_MIN, _INT64_END = -(2**63), 2**63

Entity = Literal["user", "item"]
EntityId = int | str
IdType = Literal["int", "str"]


def usable_id(value: EntityId, id_type: IdType) -> EntityId | None:
    """The id if it can be a join key of that type, a signed 64-bit integer or a string; else None."""
    if id_type == "str":
        return value if isinstance(value, str) else None
    return value if isinstance(value, int) and _INT64_MIN <= value < _INT64_END else None


Value = int | float | str | list[float] | None
Source = Literal["user", "item", "context", "user_id", "item_id"]
Role = Literal["dense", "embedding", "categorical", "passthrough"]
Dtype = Literal["int", "float", "str", "float_list"]

ITEM_SOURCES: frozenset[Source] = frozenset({"item", "item_id"})
"""The features that each item of a request has its own value of."""

REQUEST_SOURCES: frozenset[Source] = frozenset({"user", "user_id", "context"})
"""Those that all items of a request share."""

_LARGEST = float(np.finfo(np.float32).max)
_ALL_SOURCES = ITEM_SOURCES | REQUEST_SOURCES

MISSING_HASH = 0
"""The hash of a missing categorical value without a default; no present value has it."""


class FeatureBatch(NamedTuple):
    """What a student sees of B rows: finite float32 and the categorical values' 64-bit hashes (0: missing)."""

    dense_BD: NDArray[np.float32]
    categorical_BC: NDArray[np.uint64]

    def part(self, rows: slice | NDArray[np.bool_]) -> "FeatureBatch":
        """Some of the rows."""
        return FeatureBatch(self.dense_BD[rows], self.categorical_BC[rows])


def together(batches: Iterable[FeatureBatch]) -> FeatureBatch:
    """The rows of all batches, in order; at least one batch."""
    return FeatureBatch(*map(np.concatenate, zip(*batches, strict=True)))


class Feature(FrozenModel):
    """One value of a row. `view` and `feature` name it in Feast when `source` is user or item.

    A `passthrough` feature is for the teacher's domain map alone: read and logged like the others, not encoded.
    """

    name: str
    source: Source
    role: Role
    dtype: Dtype
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


class _Encoded(NamedTuple):
    """The encoded features of some sources, and where they stand in a FeatureBatch."""

    dense: tuple[tuple[Feature, int, int], ...]
    """Each with its first dense column and the one after its last."""
    categorical: tuple[tuple[Feature, int], ...]
    """Each with its categorical column."""


class FeatureSpec(FrozenModel):
    """Every feature in its order, and how Feast keys its entities in Redis."""

    feast_project: str
    user_join_key: str
    item_join_key: str
    user_id_type: IdType
    item_id_type: IdType
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
    def of_item(self) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Which of the D dense and of the C categorical columns each item of a request has its own value in."""
        dense_D = [f.source in ITEM_SOURCES for f in self.dense for _ in range(f.width)]
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
        sources: frozenset[Source] = _ALL_SOURCES,
    ) -> FeatureBatch:
        """Raw values per feature name as a FeatureBatch of `size` rows. A None becomes the feature's default.

        A column has a value per row, or one that all rows share; without `size` the first column has all rows.
        `sources`: those of items, of requests, or all; the columns of features of others are 0. With `encode_request`
        the only encoder: learner and scorer both call it, which makes their vectors bit-equal.
        """
        if size is None:
            size = len(columns[self.features[0].name])
        encoded = self._encoded[sources]
        dense_BD = np.zeros((size, len(self.dense_names)), np.float32)
        categorical_BC = np.zeros((size, len(self.categorical)), np.uint64)
        with np.errstate(over="ignore"):  # a double beyond float32 is infinite here, and clipped below
            for f, first, end in encoded.dense:
                values = _filled(f, columns[f.name])
                dense_BD[:, first:end] = np.asarray(values, np.float32).reshape(len(values), end - first)
        for f, column in encoded.categorical:
            categorical_BC[:, column] = list(map(hash_category, repeat(f.name), _filled(f, columns[f.name])))
        np.minimum(np.maximum(dense_BD, -_LARGEST, out=dense_BD), _LARGEST, out=dense_BD)
        return FeatureBatch(dense_BD, categorical_BC)

    def encode_request(self, values: Mapping[str, Value]) -> FeatureBatch:
        """The one row of what all items of a request share, of a value per feature of REQUEST_SOURCES.

        Bit for bit that of `encode`, sooner: numpy takes a row in one piece in less time than column by column.
        """
        encoded = self._encoded[REQUEST_SOURCES]
        dense: list[Any] = [0.0] * len(self.dense_names)
        categorical = [MISSING_HASH] * len(self.categorical)
        for f, first, end in encoded.dense:
            value = _or_default(f, values[f.name])
            dense[first:end] = value if isinstance(value, list) else (value,)
        for f, column in encoded.categorical:
            categorical[column] = hash_category(f.name, _or_default(f, values[f.name]))
        row_1D = np.array([dense], np.float64)
        np.minimum(np.maximum(row_1D, -_LARGEST, out=row_1D), _LARGEST, out=row_1D)
        return FeatureBatch(row_1D.astype(np.float32), np.array([categorical], np.uint64))

    @cached_property
    def _encoded(self) -> Mapping[frozenset[Source], _Encoded]:
        ends = np.cumsum([f.width for f in self.dense]).tolist()
        dense = [(f, end - f.width, end) for f, end in zip(self.dense, ends, strict=True)]
        categorical = [(f, column) for column, f in enumerate(self.categorical)]
        return {
            sources: _Encoded(
                tuple(one for one in dense if one[0].source in sources),
                tuple(one for one in categorical if one[0].source in sources),
            )
            for sources in (ITEM_SOURCES, REQUEST_SOURCES, _ALL_SOURCES)
        }


def _filled(feature: Feature, values: Sequence[Value]) -> list[Any]:
    return [feature.default if value is None else value for value in values]


def _or_default(feature: Feature, value: Value) -> Any:
    return feature.default if value is None else value


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


def spec_path(repo: Path) -> Path:
    """The spec's file in a Feast repository, beside the registry."""
    return repo / "data" / "feature_spec.json"


def save_spec(spec: FeatureSpec, repo: Path) -> None:
    """Replace the repository's spec atomically."""
    with replacing(spec_path(repo)) as file:
        file.write(spec.model_dump_json(indent=1).encode() + b"\n")


def load_spec(repo: Path) -> FeatureSpec:
    """The spec that `graft features apply` saved; GraftError when it is missing or not of this version."""
    path = spec_path(repo)
    try:
        return FeatureSpec.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise GraftError(f"{path}: no feature spec; make it with 'graft features apply'") from None
    except ValidationError as error:
        raise GraftError(
            f"{path}: not a feature spec of this version ({error.error_count()} faults); "
            "make it anew with 'graft features apply'"
        ) from None
