"""The Open Inference Protocol v2: its requests and replies as tensors, in JSON and with the binary extension.

https://github.com/open-inference/open-inference-protocol, and Triton's extension_binary_data. No HTTP here.
Inputs: ``user_id`` [1], ``item_ids`` [N] and, each [1] and optional, ``context.NAME``. Outputs: a task each, FP32 [N].
"""

import struct
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import to_json

from features.contract import context_name
from student.serve.requests import MAX_ITEMS, RequestError, refusal
from student.serve.swap import Serving
from student.versions.numpy_model import Scores
from student.versions.served_tensors import served_tasks

_OF_A_MIXTURE = "of an item among itself and the negatives that were drawn beside it: an order of items, no rate"
_CONTEXT = "context."
_DTYPES = {
    "INT8": "<i1", "INT16": "<i2", "INT32": "<i4", "INT64": "<i8",
    "UINT8": "<u1", "UINT16": "<u2", "UINT32": "<u4", "UINT64": "<u8",
    "FP32": "<f4", "FP64": "<f8",
}  # fmt: skip
_TYPE_OF = {"int": "INT64", "float": "FP32", "str": "BYTES"}
"""The datatype that a feature's own type is told as; any that holds its values is taken."""

Datatype = Literal["INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64", "FP32", "FP64", "BYTES"]


class _Part(BaseModel):
    """Fields that the protocol may add are passed over, as it asks."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


class _InputParameters(_Part):
    binary_data_size: int | None = Field(default=None, ge=0)


class _Input(_Part):
    name: str
    shape: Annotated[list[Annotated[int, Field(ge=0)]], Field(max_length=8)]
    datatype: Datatype
    parameters: _InputParameters = _InputParameters()
    data: Any = None


class _OutputParameters(_Part):
    binary_data: bool | None = None


class _Output(_Part):
    name: str
    parameters: _OutputParameters = _OutputParameters()


class _RequestParameters(_Part):
    binary_data_output: bool = False


class _Request(_Part):
    id: Annotated[str, Field(max_length=256)] | None = None
    parameters: _RequestParameters = _RequestParameters()
    inputs: Annotated[list[_Input], Field(max_length=256)]
    outputs: Annotated[list[_Output], Field(max_length=256)] | None = None


class Asked(NamedTuple):
    """What a request asks for."""

    id: str | None
    request: dict[str, Any]
    """As the body of /score has it: user_id, item_ids, context."""
    outputs: Sequence[tuple[str, bool]] | None
    """Names, and whether each is to be binary; all outputs if None."""
    is_binary: bool
    """Of outputs that say nothing else."""


def read_request(body: bytes, header_length: str | None) -> Asked:
    """What the body asks for, or RequestError 400; `header_length` is the header Inference-Header-Content-Length."""
    size = len(body)
    if header_length is not None:
        if not header_length.isdecimal() or len(header_length) > 10 or int(header_length) > size:
            raise _refused("Inference-Header-Content-Length", header_length, f"a number of at most {size} bytes")
        size = int(header_length)
    try:
        asked = _Request.model_validate_json(body[:size])
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        raise _refused(".".join(map(str, first["loc"])), None, first["msg"]) from None
    values = _values(asked.inputs, body[size:])
    binary = asked.parameters.binary_data_output
    outputs = None
    if asked.outputs:
        own = ((of.name, of.parameters.binary_data) for of in asked.outputs)
        outputs = list({name: binary if told is None else told for name, told in own}.items())  # each once, as Triton
    return Asked(asked.id, _as_score_request(values), outputs, binary)


def reply(asked: Asked, model: Mapping[str, str], scores: Scores) -> tuple[bytes, int | None]:
    """The body of the reply, and the length of its JSON part where binary tensors follow.

    `model`: model_name and model_version. RequestError 400 for an output that there is not.
    """
    wanted = [(task, asked.is_binary) for task in scores] if asked.outputs is None else asked.outputs
    outputs, tensors = [], b""
    for task, is_binary in wanted:
        if task not in scores:
            raise _refused("outputs", task, f"any of {', '.join(scores)}")
        output: dict[str, Any] = {"name": task, "datatype": "FP32", "shape": [len(scores[task])]}
        if is_binary:
            data = scores[task].astype("<f4").tobytes()
            output["parameters"] = {"binary_data_size": len(data)}
            tensors += data
        else:
            output["data"] = scores[task].tolist()
        outputs.append(output)
    told = {**model, **({} if asked.id is None else {"id": asked.id}), "outputs": outputs}
    head = to_json(told, inf_nan_mode="null")
    return head + tensors, len(head) if any(is_binary for _, is_binary in wanted) else None


def metadata(name: str, versions: Sequence[str], serving: Serving) -> dict[str, Any]:
    """What GET /v2/models/NAME says of a version: inputs and outputs with their types, and where it comes from.

    A shape of -1 is any number. Properties are texts, as the protocol has them.
    """
    manifest, spec = serving.manifest, serving.spec
    context = [(context_name(f), f.dtype) for f in spec.features if f.source == "context"]
    inputs: list[tuple[str, str, int]] = [("user_id", spec.user_id_type, 1), ("item_ids", spec.item_id_type, -1)]
    inputs += [(f"{_CONTEXT}{key}", dtype, 1) for key, dtype in context]
    return {
        "name": name,
        "versions": list(versions),
        "platform": "graft_student",
        "inputs": [{"name": n, "datatype": _TYPE_OF[dtype], "shape": [size]} for n, dtype, size in inputs],
        "outputs": [{"name": task, "datatype": "FP32", "shape": [-1]} for task in served_tasks(manifest)],
        "properties": {
            "version": serving.version,
            "serving_since": _moment(serving.since_ms),
            "published_at": _moment(manifest.created_at_ms),
            "examples": str(manifest.examples),
            "offsets": to_json(manifest.offsets).decode(),
            **({"probabilities": _OF_A_MIXTURE} if manifest.met_drawn else {}),
        },
    }


def _moment(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds")


def _values(inputs: Sequence[_Input], tensors: bytes) -> dict[str, list[Any]]:
    """The values of each input, flat; the binary ones stand in `tensors` in the inputs' order."""
    values: dict[str, list[Any]] = {}
    first = 0
    for of in inputs:
        count = int(np.prod(of.shape, dtype=object)) if of.shape else 1
        if of.name in values or count > MAX_ITEMS:
            raise _refused(of.name, of.shape, f"one input of each name, with at most {MAX_ITEMS} elements")
        if (size := of.parameters.binary_data_size) is None:
            values[of.name] = _flat(of.data)
        else:
            values[of.name] = _from_bytes(of, tensors[first : first + size], count, size)
            first += size
        if len(values[of.name]) != count:
            raise _refused(of.name, len(values[of.name]), f"as many elements as its shape {of.shape} has")
    if first != len(tensors):
        raise _refused("inputs", len(tensors), f"as many bytes after the JSON part as inputs say: {first}")
    return values


def _from_bytes(of: _Input, data: bytes, count: int, size: int) -> list[Any]:
    if len(data) != size:
        raise _refused(of.name, size, f"a binary_data_size of bytes that follow; {len(data)} do")
    if of.datatype == "BYTES":
        return _texts(of.name, data)
    dtype = np.dtype(_DTYPES[of.datatype])
    if size != count * dtype.itemsize:
        raise _refused(of.name, size, f"{count * dtype.itemsize} bytes of {of.datatype} for shape {of.shape}")
    found: list[Any] = np.frombuffer(data, dtype).tolist()
    return found


def _texts(name: str, data: bytes) -> list[str]:
    """Elements of BYTES: each a length of four bytes, little endian, then so many bytes of UTF-8."""
    found, at = [], 0
    while at < len(data):
        length = struct.unpack_from("<I", data, at)[0] if at + 4 <= len(data) else len(data)
        at += 4
        if at + length > len(data):
            raise _refused(name, len(data), "elements that end with the data")
        try:
            found.append(data[at : at + length].decode("utf-8"))
        except UnicodeDecodeError:
            raise _refused(name, None, "text in UTF-8") from None
        at += length
    return found


def _flat(data: Any) -> list[Any]:
    """A list of values, whether it was flat or nested as its shape is."""
    if not isinstance(data, list):
        return [data]
    if not any(isinstance(one, list) for one in data):
        return data
    return [value for one in data for value in _flat(one)]


def _as_score_request(values: Mapping[str, list[Any]]) -> dict[str, Any]:
    request: dict[str, Any] = {}
    context: dict[str, Any] = {}
    for name, found in values.items():
        if name in ("item_ids", "impression_ids"):
            request[name] = found
        elif len(found) != 1:
            raise _refused(name, len(found), "one element")
        elif name in ("context", "version", "explain"):  # of /score; here inputs of their own, the path, and nothing
            raise _refused(name, None, f"user_id, item_ids, impression_ids and {_CONTEXT}NAME")
        elif name.startswith(_CONTEXT):
            context[name.removeprefix(_CONTEXT)] = found[0]
        else:
            request[name] = found[0]
    return request | ({"context": context} if context else {})


def _refused(field: str, value: Any, allowed: str) -> RequestError:
    return refusal(400, field, value, allowed, f"{field}: allowed is {allowed}, got {value!r}"[:500])
