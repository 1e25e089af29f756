"""Requests and replies of the Open Inference Protocol v2 as a client writes and reads them, in JSON or in binary.

https://github.com/open-inference/open-inference-protocol, and Triton's extension_binary_data. No HTTP here.
Shapes: B rows.
"""

import json
import struct
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

_Model = TypeVar("_Model", bound=BaseModel)

DTYPES: dict[str, np.dtype[Any]] = {
    "INT8": np.dtype("<i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
    "BYTES": np.dtype(object),
}
"""By the protocol's datatype, those that a teacher may take."""

HEADER_LENGTH = "Inference-Header-Content-Length"
BINARY = "binary_tensor_data"
"""The extension's name in a server's metadata."""

_Shape = Annotated[list[Annotated[int, Field(ge=-1)]], Field(max_length=8)]


class ReplyError(ValueError):
    """A reply that is not what the protocol asks for; the text says in what."""


class _Told(BaseModel):
    """Fields that the protocol may add are passed over, as it asks."""

    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())


class TensorMetadata(_Told):
    """A tensor as a server tells it; -1 is any size."""

    name: str
    datatype: str
    shape: _Shape


class ServerMetadata(_Told):
    """What GET /v2 says."""

    name: str = ""
    extensions: list[str] = []


class ModelMetadata(_Told):
    """What GET /v2/models/NAME says."""

    name: str
    versions: list[str] | None = None
    platform: str = ""
    inputs: Annotated[list[TensorMetadata], Field(max_length=10_000)]
    outputs: Annotated[list[TensorMetadata], Field(max_length=10_000)]


class _Parameters(_Told):
    binary_data_size: Annotated[int, Field(ge=0)] | None = None


class _Output(TensorMetadata):
    parameters: _Parameters = _Parameters()
    data: Any = None


class _Reply(_Told):
    model_version: str | None = None
    outputs: Annotated[list[_Output], Field(max_length=10_000)]


def parsed(model: type[_Model], body: bytes) -> _Model:
    """A body as this model; ReplyError."""
    try:
        return model.model_validate(json.loads(body))
    except (ValueError, RecursionError) as error:
        raise ReplyError(_first(error)) from None


def write_request(
    feeds: Mapping[str, NDArray[Any]], datatypes: Mapping[str, str], outputs: Sequence[str], *, is_binary: bool
) -> tuple[bytes, dict[str, str]]:
    """The body and the headers of an inference request for these outputs. UnicodeEncodeError: a text is not Unicode."""
    inputs, tail = [], []
    for name, tensor in feeds.items():
        entry: dict[str, Any] = {"name": name, "shape": list(tensor.shape), "datatype": datatypes[name]}
        if is_binary:
            data = _binary(tensor, datatypes[name])
            entry["parameters"] = {"binary_data_size": len(data)}
            tail.append(data)
        else:
            entry["data"] = tensor.reshape(-1).tolist()
        inputs.append(entry)
    wanted: list[dict[str, Any]] = [{"name": name} for name in outputs]
    for entry in wanted if is_binary else ():
        entry["parameters"] = {"binary_data": True}
    head = json.dumps({"inputs": inputs, "outputs": wanted}, allow_nan=False, separators=(",", ":")).encode()
    if not is_binary:
        return head, {"Content-Type": "application/json"}
    return b"".join([head, *tail]), {"Content-Type": "application/octet-stream", HEADER_LENGTH: str(len(head))}


def read_reply(
    body: bytes, header_length: str | None, outputs: Mapping[str, tuple[str, Sequence[int]]]
) -> tuple[str | None, list[NDArray[Any]]]:
    """The version that answered, if it says so, and these outputs; ReplyError where one is not as it should be.

    `outputs`: of each its datatype and shape. `header_length` is the reply's header, where binary tensors follow.
    """
    size = _head_size(body, header_length)
    reply = parsed(_Reply, body[:size])
    found: dict[str, NDArray[Any]] = {}
    at = size
    for output in reply.outputs:
        binary = output.parameters.binary_data_size
        data = None if binary is None else body[at : at + binary]
        at += binary or 0
        if output.name in outputs:
            found[output.name] = _values(output, data, *outputs[output.name])
    if at != len(body):
        raise ReplyError(f"its outputs say {at:,} bytes, the reply has {len(body):,}")
    if missing := [name for name in outputs if name not in found]:
        raise ReplyError(f"it has no output {missing[0]!r}")
    return reply.model_version, [found[name] for name in outputs]


def most_bytes(outputs: Mapping[str, tuple[str, Sequence[int]]]) -> int:
    """More than a reply with these outputs has, in JSON with every digit."""
    return (1 << 20) + sum(40 * int(np.prod(shape, dtype=object)) for _, shape in outputs.values())


def _head_size(body: bytes, header_length: str | None) -> int:
    if header_length is None:
        return len(body)
    if not header_length.isdecimal() or len(header_length) > 12 or int(header_length) > len(body):
        raise ReplyError(f"{HEADER_LENGTH} is {header_length[:40]!r}, the reply has {len(body):,} bytes")
    return int(header_length)


def _values(output: _Output, data: bytes | None, datatype: str, shape: Sequence[int]) -> NDArray[Any]:
    if output.datatype != datatype or output.shape != list(shape):
        raise ReplyError(
            f"output {output.name} is {output.datatype} of shape {output.shape}, "
            f"it should be {datatype} of shape {list(shape)}"
        )
    count = int(np.prod(shape, dtype=object))
    dtype = DTYPES[datatype]
    if data is not None:
        if len(data) != count * dtype.itemsize:
            raise ReplyError(f"output {output.name} has {len(data):,} bytes, it should have {count * dtype.itemsize:,}")
        return np.frombuffer(data, dtype).reshape(shape)
    values = np.array([_number(output.name, one) for one in _flat(output.data, 8)], np.float64)
    if len(values) != count:
        raise ReplyError(f"output {output.name} has {len(values):,} numbers, it should have {count:,}")
    with np.errstate(over="ignore"):
        return values.astype(dtype).reshape(shape)


def _number(name: str, value: Any) -> float:
    """A number of JSON; null is what a server writes that has none for NaN."""
    if value is None:
        return float("nan")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ReplyError(f"output {name} has {str(value)[:40]!r} among its numbers")
    try:
        return float(value)
    except OverflowError:
        return float("inf")


def _flat(data: Any, depth: int) -> list[Any]:
    """A list of values, whether it was flat or nested as its shape is."""
    if not isinstance(data, list) or depth == 0:
        raise ReplyError("an output has no list of data")
    if not any(isinstance(one, list) for one in data):
        return data
    return [value for one in data for value in _flat(one, depth - 1)]


def _binary(tensor: NDArray[Any], datatype: str) -> bytes:
    if datatype != "BYTES":
        return np.ascontiguousarray(tensor, DTYPES[datatype]).tobytes()
    texts = [str(one).encode() for one in tensor.reshape(-1)]
    return b"".join(struct.pack("<I", len(one)) + one for one in texts)


def _first(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return f"it is not JSON: {str(error)[:200]}"
    fault = error.errors(include_url=False, include_context=False, include_input=False)[0]
    return f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}"[:300]
