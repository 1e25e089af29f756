"""Which other files an ONNX file takes its weights from (`external_data`), read without onnxruntime.

An ONNX file is one protobuf message (onnx.proto3). Only messages that can hold a tensor are entered; what they contain
beside that is passed over, so that a file of gigabytes costs its headers alone.
"""

import mmap
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from runtime.folder import lies_within

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # the wire types of protobuf
_TENSOR, _ENTRY = "TensorProto", "StringStringEntryProto"
_CHILDREN = {
    "ModelProto": {7: "GraphProto", 20: "TrainingInfoProto", 25: "FunctionProto"},
    "GraphProto": {1: "NodeProto", 5: _TENSOR, 15: "SparseTensorProto"},
    "TrainingInfoProto": {1: "GraphProto", 2: "GraphProto"},
    "FunctionProto": {7: "NodeProto", 11: "AttributeProto"},
    "NodeProto": {5: "AttributeProto"},
    "AttributeProto": {
        5: _TENSOR,
        6: "GraphProto",
        10: _TENSOR,
        11: "GraphProto",
        22: "SparseTensorProto",
        23: "SparseTensorProto",
    },
    "SparseTensorProto": {1: _TENSOR, 2: _TENSOR},
    _TENSOR: {13: _ENTRY},
}
"""By message the fields that are messages on the way to a tensor."""


class NotOnnxError(ValueError):
    """Bytes that are no protobuf message; the text says where they are not."""


def weight_files(path: Path) -> list[str]:
    """The names of the other files, as the ONNX file at `path` has them: relative to its folder; sorted, each once.

    NotOnnxError when it is no ONNX file or names one outside its folder; OSError when it cannot be read.
    """
    with path.open("rb") as file:
        try:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError:
            raise NotOnnxError("it is empty") from None
    with data:
        names = sorted(set(_locations(data)))
    for name in names:
        if PurePosixPath(name).is_absolute() or not lies_within(path.parent / name, path.parent):
            raise NotOnnxError(f"its weights are in {name!r}, which lies outside its folder; put it beside the file")
    return names


def _locations(data: mmap.mmap) -> Iterator[str]:
    """The `location` of each tensor that has one."""
    waiting = [("ModelProto", 0, len(data))]
    while waiting:
        message, start, end = waiting.pop()
        for field, begin, stop in _fields(data, start, end):
            child = _CHILDREN[message].get(field)
            if child == _ENTRY:
                if (location := _location(data, begin, stop)) is not None:
                    yield location
            elif child is not None:
                waiting.append((child, begin, stop))


def _location(data: mmap.mmap, start: int, end: int) -> str | None:
    """The value of an entry with the key ``location``."""
    entry = {field: data[begin:stop] for field, begin, stop in _fields(data, start, end)}
    if entry.get(1) != b"location":
        return None
    name = entry.get(2, b"")
    try:
        if b"\0" not in name:
            return name.decode()
    except UnicodeDecodeError:
        pass
    raise NotOnnxError(f"{name!r} is no name of a file")


def _fields(data: mmap.mmap, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Each field of a message that has a length: its number, and where its bytes begin and end."""
    at = start
    while at < end:
        tag, at = _varint(data, at, end)
        kind = tag & 7
        if kind == _VARINT:
            _, at = _varint(data, at, end)
        elif kind == _FIXED64:
            at += 8
        elif kind == _FIXED32:
            at += 4
        elif kind == _BYTES:
            size, begin = _varint(data, at, end)
            at = begin + size
            if at <= end:
                yield tag >> 3, begin, at
        else:
            raise NotOnnxError(f"byte {at} begins no field of a protobuf message")
        if at > end:
            raise NotOnnxError(f"a field ends at byte {at}, beyond its message, which ends at {end}")


def _varint(data: mmap.mmap, at: int, end: int) -> tuple[int, int]:
    """A number, and where the next field goes on."""
    number = shift = 0
    while at < end and shift < 64:
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
        shift += 7
    raise NotOnnxError(f"byte {at} ends no number of a protobuf message")
