"""Tensors of the Open Inference Protocol v2, in JSON and with the binary extension: of the scorer, and of a teacher.

https://github.com/open-inference/open-inference-protocol, and Triton's extension_binary_data. No HTTP here.
"""

import struct
from collections.abc import Sequence
from typing import Annotated, Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

_Model = TypeVar("_Model", bound=BaseModel)

HEADER_LENGTH = "Inference-Header-Content-Length"
"""The header with the length of the JSON part, where binary tensors follow it."""

BINARY = "binary_tensor_data"
"""The extension's name in a server's metadata."""

DTYPES: dict[str, np.dtype[Any]] = {
    "INT8": np.dtype("<i1"), "INT16": np.dtype("<i2"), "INT32": np.dtype("<i4"), "INT64": np.dtype("<i8"),
    "UINT8": np.dtype("<u1"), "UINT16": np.dtype("<u2"), "UINT32": np.dtype("<u4"), "UINT64": np.dtype("<u8"),
    "FP16": np.dtype("<f2"), "FP32": np.dtype("<f4"), "FP64": np.dtype("<f8"), "BYTES": np.dtype(object),
}  # fmt: skip
"""By the protocol's datatype."""

_MOST_DIMENSIONS = 8


class TensorError(ValueError):
    """A request or a reply that is not what the protocol asks for; the text says in what."""


class Part(BaseModel):
    """A part of a body. Fields that the protocol may add are passed over, as it asks."""

    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())


class TensorMetadata(Part):
    """A tensor without its values; in a model's metadata -1 is any size."""

    name: str
    datatype: str
    shape: Annotated[list[Annotated[int, Field(ge=-1)]], Field(max_length=_MOST_DIMENSIONS)]


class _Parameters(Part):
    binary_data_size: Annotated[int, Field(ge=0)] | None = None


class Tensor(TensorMetadata):
    """A tensor with its values, here or after the JSON part."""

    parameters: _Parameters = _Parameters()
    data: Any = None

    @property
    def size(self) -> int:
        """The number of its elements; TensorError when the shape has none."""
        if any(length < 0 for length in self.shape):
            raise TensorError(f"{self.name}: its shape is {self.shape}, allowed are lengths from 0 on")
        return int(np.prod(self.shape, dtype=object)) if self.shape else 1


def json_part(body: bytes, header_length: str | None) -> int:
    """How many bytes of a body are its JSON; `header_length` is the header of that name. TensorError."""
    if header_length is None:
        return len(body)
    if not header_length.isdecimal() or len(header_length) > 12 or int(header_length) > len(body):
        raise TensorError(f"{HEADER_LENGTH} is {header_length[:40]!r}, allowed is a number of at most {len(body):,}")
    return int(header_length)


def parsed(model: type[_Model], body: bytes, *, strict: bool = False) -> _Model:
    """The JSON of a body as this model; TensorError."""
    try:
        return model.model_validate_json(body, strict=strict)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = "it is not JSON" if fault["type"] == "json_invalid" else ".".join(map(str, fault["loc"]))
        raise TensorError(f"{where}: {fault['msg']}"[:300]) from None


def with_bytes(tensors: Sequence[Tensor], tail: bytes) -> list[tuple[Tensor, bytes | None]]:
    """Each tensor with its bytes, where it is binary: `tail` has them in the tensors' order. TensorError."""
    parts, at = [], 0
    for tensor in tensors:
        size = tensor.parameters.binary_data_size
        parts.append((tensor, None if size is None else tail[at : at + size]))
        at += size or 0
    if at != len(tail):
        raise TensorError(f"its tensors have {at} bytes after the JSON part, there are {len(tail)}")
    return parts


def values_of(tensor: Tensor, data: bytes | None) -> list[Any] | NDArray[Any]:
    """The values of a tensor, flat: of binary numbers as an array. TensorError."""
    size = tensor.size
    if tensor.datatype not in DTYPES:
        raise TensorError(f"{tensor.name}: its datatype is {tensor.datatype[:40]!r}, allowed is {', '.join(DTYPES)}")
    values: list[Any] | NDArray[Any]
    if data is None:
        values = _flat(tensor.data)
    elif tensor.datatype == "BYTES":
        values = _texts(tensor.name, data)
    else:
        dtype = DTYPES[tensor.datatype]
        if len(data) != size * dtype.itemsize:
            fault = f"allowed are the {size * dtype.itemsize:,} of {tensor.datatype} of its shape {tensor.shape}"
            raise TensorError(f"{tensor.name}: has {len(data):,} bytes, {fault}")
        values = np.frombuffer(data, dtype)
    if len(values) != size:
        fault = f"allowed is as many elements as its shape {tensor.shape} has"
        raise TensorError(f"{tensor.name}: has {len(values):,}, {fault}")
    return values


def written(name: str, datatype: str, tensor: NDArray[Any], *, is_binary: bool) -> tuple[dict[str, Any], bytes]:
    """A tensor of a body, and its bytes after the JSON part. UnicodeEncodeError: a text is not Unicode."""
    entry: dict[str, Any] = {"name": name, "datatype": datatype, "shape": list(tensor.shape)}
    if not is_binary:
        return {**entry, "data": tensor.reshape(-1).tolist()}, b""
    if datatype == "BYTES":
        texts = [str(text).encode() for text in tensor.reshape(-1)]
        data = b"".join(struct.pack("<I", len(text)) + text for text in texts)
    else:
        data = np.ascontiguousarray(tensor, DTYPES[datatype]).tobytes()
    return {**entry, "parameters": {"binary_data_size": len(data)}}, data


def _texts(name: str, data: bytes) -> list[str]:
    """Elements of BYTES: each a length of four bytes, little endian, then so many bytes of UTF-8."""
    texts, at = [], 0
    while at < len(data):
        length = struct.unpack_from("<I", data, at)[0] if at + 4 <= len(data) else len(data)
        at += 4
        if at + length > len(data):
            raise TensorError(f"{name}: has {len(data)} bytes, allowed are elements that end with them")
        try:
            texts.append(data[at : at + length].decode("utf-8"))
        except UnicodeDecodeError:
            raise TensorError(f"{name}: allowed is text in UTF-8") from None
        at += length
    return texts


def _flat(data: Any, dimensions: int = _MOST_DIMENSIONS) -> list[Any]:
    """The values of a list, whether it is flat or nested as its shape is."""
    if not isinstance(data, list):
        return [data]
    if not any(isinstance(value, list) for value in data):
        return data
    if dimensions == 0:
        raise TensorError(f"data is nested more than {_MOST_DIMENSIONS} times")
    return [value for part in data for value in _flat(part, dimensions - 1)]
