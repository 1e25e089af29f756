"""Which other files an ONNX file takes its weights from (`external_data`), read without onnxruntime."""

from collections.abc import Iterator
from os import fsdecode
from pathlib import Path, PurePosixPath

import onnx
from google.protobuf.message import DecodeError, Message

from runtime.folder import lies_within


class NotOnnxError(ValueError):
    """A file that is no ONNX model whose weights can be read; the text says why."""


def weight_files(path: Path) -> list[str]:
    """The names of the other files, as the ONNX file at `path` has them: relative to its folder; sorted, each once.

    NotOnnxError when it is no ONNX file or names one outside its folder; OSError when it cannot be read.
    Meanwhile its bytes are twice in memory.
    """
    try:
        model = onnx.ModelProto.FromString(path.read_bytes())
    except DecodeError as error:
        raise NotOnnxError(f"it is no protobuf message: {error}") from None
    entries = [entry for tensor in _tensors(model) for entry in tensor.external_data]
    names = sorted({fsdecode(entry.value) for entry in entries if entry.key == "location"})
    for name in names:
        is_relative = name.isprintable() and not PurePosixPath(name).is_absolute()
        if not is_relative or not lies_within(path.parent / name, path.parent):
            raise NotOnnxError(f"its weights are in {name!r}, which lies outside its folder; put it beside the file")
    return names


def _tensors(message: Message) -> Iterator[onnx.TensorProto]:
    """Every tensor in a message, in whichever of its fields: initializers, attributes, subgraphs, functions."""
    if isinstance(message, onnx.TensorProto):
        yield message
        return
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in [value] if isinstance(value, Message) else value:
                yield from _tensors(part)
