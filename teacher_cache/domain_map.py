"""The domain map: makes the teacher's input tensors from target features, or from defaults without a counterpart.

Shapes: B rows, n elements of a wide input.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.spec import FeatureSpec, Value
from runtime.errors import ConfigurationError
from teacher_cache.config import (
    BucketInput,
    DefaultInput,
    FeatureInput,
    LinearInput,
    LookupInput,
    Scalar,
    TeacherConfig,
)
from teacher_cache.domain_map_faults import faults
from teacher_cache.lookup_table import read_table
from teacher_cache.teacher import Teacher, TensorSpec

__all__ = ["DomainMap", "MappedRows", "faults"]

_EXACT_INTEGERS = 2.0**53  # up to here float64, in which numbers are computed, holds every integer

Column = Sequence[Value]
Mapped = tuple[NDArray[Any], NDArray[np.bool_]]
"""One teacher tensor ([B], or [B, n] if wide) and which rows fell back to the default [B]."""


class MappedRows(NamedTuple):
    """The teacher's tensors by name, and for each row the share of its mapped inputs that fell back, [B] in [0, 1]."""

    inputs: dict[str, NDArray[Any]]
    fallback_share_B: NDArray[np.float64]


class DomainMap:
    """Compiled `teacher.inputs`; ConfigurationError with all of `faults(...)`. Pure: equal columns, equal tensors.

    A value falls back to the input's default when it is missing, is not in the lookup table, has another width, or
    does not fit the tensor's type (not finite, out of range).
    """

    def __init__(self, config: TeacherConfig, folder: Path, teacher: Teacher, spec: FeatureSpec) -> None:
        found = faults(config, folder, teacher, spec)
        if found:
            raise ConfigurationError(found)
        self._constants = {
            name: _constant(teacher.inputs[name], mapped.default)
            for name, mapped in config.inputs.items()
            if isinstance(mapped, DefaultInput)
        }
        self._fed = {
            name: (mapped.feature, _compile(mapped, teacher.inputs[name], folder))
            for name, mapped in config.inputs.items()
            if not isinstance(mapped, DefaultInput)
        }

    @property
    def defaulted_share(self) -> float:
        """The share of the teacher's inputs without a counterpart in the target, in [0, 1]."""
        return len(self._constants) / (len(self._constants) + len(self._fed))

    def map_rows(self, columns: Mapping[str, Column]) -> MappedRows:
        """The teacher's inputs of B rows, given as raw values by feature name."""
        size = len(next(iter(columns.values())))
        inputs: dict[str, NDArray[Any]] = {
            name: np.broadcast_to(value, (size, *value.shape)) for name, value in self._constants.items()
        }
        fell_back_B = np.zeros(size, np.int64)
        for name, (feature, convert) in self._fed.items():
            inputs[name], missed_B = convert(columns[feature])
            fell_back_B += missed_B
        return MappedRows(inputs, fell_back_B / max(1, len(self._fed)))

    def fallbacks(self, columns: Mapping[str, Column]) -> dict[str, NDArray[np.bool_]]:
        """By mapped input which of B rows fall back to its default, [B]."""
        return {name: convert(columns[feature])[1] for name, (feature, convert) in self._fed.items()}


def _constant(tensor: TensorSpec, default: Scalar | list[float]) -> NDArray[Any]:
    value = np.asarray(default, tensor.dtype)
    return np.broadcast_to(value, (tensor.width,)) if tensor.width > 1 else value.reshape(())


def _compile(
    mapped: FeatureInput | LookupInput | BucketInput | LinearInput, tensor: TensorSpec, folder: Path
) -> Callable[[Column], Mapped]:
    match mapped:
        case LookupInput():
            return _Lookup(mapped, tensor, folder)
        case BucketInput():
            return _Bucket(mapped, tensor)
        case LinearInput():
            return _Numbers(tensor, mapped.default, mapped.multiply, mapped.add)
        case FeatureInput():
            if tensor.width > 1:
                return _Vectors(tensor, mapped.default)
            if tensor.dtype.kind == "f":
                return _Numbers(tensor, mapped.default)
            return _Exact(tensor, mapped.default)


class _Exact:
    """Integers and strings as they are: no float64 in between, so that 64-bit ids stay whole."""

    def __init__(self, tensor: TensorSpec, default: Scalar | list[float]) -> None:
        self._dtype = tensor.dtype
        self._default = _constant(tensor, default).item()

    def __call__(self, column: Column) -> Mapped:
        missed_B = np.fromiter((not self._fits(value) for value in column), np.bool_, len(column))
        values = [self._default if missed else value for value, missed in zip(column, missed_B, strict=True)]
        return np.array(values, self._dtype), missed_B

    def _fits(self, value: Value) -> bool:
        if self._dtype.kind == "O":
            return isinstance(value, str)
        limits = np.iinfo(self._dtype)
        return isinstance(value, int) and limits.min <= value <= limits.max


class _Numbers:
    """`multiply * x + add`, computed in float64."""

    def __init__(
        self, tensor: TensorSpec, default: Scalar | list[float], multiply: float = 1.0, add: float = 0.0
    ) -> None:
        self._dtype = tensor.dtype
        self._default = _constant(tensor, default)
        self._multiply = multiply
        self._add = add

    def __call__(self, column: Column) -> Mapped:
        return _cast(self._multiply * _float64(column) + self._add, self._dtype, self._default)


class _Vectors:
    """Lists of n numbers."""

    def __init__(self, tensor: TensorSpec, default: Scalar | list[float]) -> None:
        self._tensor = tensor
        self._default = _constant(tensor, default)

    def __call__(self, column: Column) -> Mapped:
        lost = [np.nan] * self._tensor.width
        rows = [v if isinstance(v, list) and len(v) == self._tensor.width else lost for v in column]
        values = np.asarray(rows, np.float64).reshape(len(rows), self._tensor.width)
        return _cast(values, self._tensor.dtype, self._default)


class _Lookup:
    """Values of a table by the feature's text; an integer's text is its decimal digits."""

    def __init__(self, mapped: LookupInput, tensor: TensorSpec, folder: Path) -> None:
        self._dtype = tensor.dtype
        self._table = dict(read_table(mapped, folder))
        self._default = mapped.default

    def __call__(self, column: Column) -> Mapped:
        keys = [None if value is None else str(value) for value in column]
        missed_B = np.fromiter((key not in self._table for key in keys), np.bool_, len(keys))
        values = [self._default if key is None else self._table.get(key, self._default) for key in keys]
        return np.array(values, self._dtype), missed_B


class _Bucket:
    """`codes[i]` for boundaries[i-1] <= x < boundaries[i]."""

    def __init__(self, mapped: BucketInput, tensor: TensorSpec) -> None:
        self._boundaries = np.asarray(mapped.boundaries, np.float64)
        self._codes = np.asarray(mapped.codes, tensor.dtype)
        self._default = _constant(tensor, mapped.default)

    def __call__(self, column: Column) -> Mapped:
        x_B = _float64(column)
        missed_B = ~np.isfinite(x_B)
        codes_B = self._codes[np.searchsorted(self._boundaries, x_B, side="right")]
        return np.where(missed_B, self._default, codes_B), missed_B


def _float64(column: Column) -> NDArray[np.float64]:
    """Numbers, NaN where there is none."""
    return np.array([v if isinstance(v, int | float) else np.nan for v in column], np.float64)


def _cast(values: NDArray[np.float64], dtype: np.dtype[Any], default: NDArray[Any]) -> Mapped:
    """`values` [B] or [B, n] as `dtype`, and the default's row where one does not fit."""
    limit = min(_EXACT_INTEGERS, float(np.iinfo(dtype).max)) if dtype.kind == "i" else float(np.finfo(dtype).max)
    fits = np.less_equal(np.abs(values), limit)  # False for NaN
    fits_B: NDArray[np.bool_] = np.asarray(fits.all(axis=tuple(range(1, values.ndim))))
    chosen = fits_B.reshape(len(values), *[1] * (values.ndim - 1))
    return np.where(chosen, np.where(fits, values, 0.0).astype(dtype), default), ~fits_B
