"""What is in a file of torch.export.save, read as data: a graph in JSON, and bytes of tensors. No torch, no pickle.

The format is torch's own (torch/export/pt2_archive, torch/_export/serde/schema.py): a zip file without compression.
Its sample inputs are a pickle and are not read. See docs/decisions/021-kinds-of-teachers.md.
"""

import json
import struct
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

_ARCHIVE_VERSION = b"0"
_SCHEMA_MAJOR = 8
_MOST_GRAPH_BYTES = 64 << 20
_MOST_MEMBERS = 100_000
_GRAPH = "models/model.json"
_CONFIGS = {
    "weights": "data/weights/model_weights_config.json",
    "constants": "data/constants/model_constants_config.json",
}
_NOT_READ = (".data/", ".format_version", ".storage_alignment", "version", "extra/", "data/sample_inputs/")
_KNOWN = ("archive_format", "archive_version", "byteorder", "models/", "data/weights/", "data/constants/")


class NotExportedError(ValueError):
    """A file that is not taken; the text says why, and what to do."""


class Payload(NamedTuple):
    """A tensor: the bytes of its storage, and torch's TensorMeta of it as JSON has it."""

    data: bytearray
    meta: Mapping[str, Any]


class Archive(NamedTuple):
    """A program: the graph module of torch's schema as JSON, and by their names parameters, buffers and constants."""

    program: Mapping[str, Any]
    weights: Mapping[str, Payload]
    constants: Mapping[str, Payload]


def read_archive(path: Path) -> Archive:
    """The program in the file. NotExportedError when it is none, or has a member that would have to be executed.

    OSError when it cannot be read. Every member is looked at before the first one is read.
    """
    try:
        with zipfile.ZipFile(path) as file:
            return _Reader(file).archive()
    except NotExportedError:
        raise
    except (zipfile.BadZipFile, EOFError, struct.error, RuntimeError, ValueError, OverflowError) as error:
        raise NotExportedError(f"it is no whole zip file of torch.export.save: {error}") from None


class _Reader:
    def __init__(self, file: zipfile.ZipFile) -> None:
        self._file = file
        self._members = _members(file)

    def archive(self) -> Archive:
        if self._text("archive_format") != b"pt2" or self._text("archive_version") != _ARCHIVE_VERSION:
            raise NotExportedError(
                "it is no archive of torch.export.save of the version that is read here: export it with torch 2.9 or "
                "later"
            )
        if self._text("byteorder") != b"little":
            raise NotExportedError("its bytes are not little-endian: export it on another machine")
        program = self._json(_GRAPH)
        version = program.get("schema_version")
        major = version.get("major") if isinstance(version, dict) else None
        if major != _SCHEMA_MAJOR or not isinstance(program.get("graph_module"), dict):
            raise NotExportedError(
                f"its graph has schema version {major!r}, allowed is {_SCHEMA_MAJOR}: export it with another torch"
            )
        return Archive(program, self._payloads("weights"), self._payloads("constants"))

    def _text(self, name: str) -> bytes:
        member = self._members.get(name)
        return b"" if member is None or member.file_size > 64 else self._file.read(member).strip()

    def _json(self, name: str) -> dict[str, Any]:
        member = self._members.get(name)
        if member is None:
            raise NotExportedError(f"it has no {name}: write it with torch.export.save, one program in a file")
        if member.file_size > _MOST_GRAPH_BYTES:
            raise NotExportedError(f"{name} has {member.file_size:,} bytes, allowed are {_MOST_GRAPH_BYTES:,}")
        try:
            found = json.loads(self._file.read(member))
        except (ValueError, RecursionError) as error:
            raise NotExportedError(f"{name} is not JSON: {error}") from None
        if not isinstance(found, dict):
            raise NotExportedError(f"{name} holds no JSON object")
        return found

    def _payloads(self, kind: str) -> dict[str, Payload]:
        """The tensors of a config; of a storage that several share, the same bytes."""
        config = self._json(_CONFIGS[kind]).get("config")
        if not isinstance(config, dict):
            raise NotExportedError(f"{_CONFIGS[kind]} has no table config")
        bytes_of: dict[str, bytearray] = {}
        found = {}
        for name, entry in config.items():
            path, meta = self._checked(f"data/{kind}/", name, entry)
            if path not in bytes_of:
                bytes_of[path] = bytearray(self._file.read(self._members[path]))
            found[name] = Payload(bytes_of[path], meta)
        return found

    def _checked(self, folder: str, name: str, entry: Any) -> tuple[str, Mapping[str, Any]]:
        """The member and the meta of an entry; refuses what is pickled."""
        if not isinstance(entry, dict) or not isinstance(entry.get("path_name"), str):
            raise NotExportedError(f"{folder}: {name} has no path_name")
        if entry.get("use_pickle") is not False or not isinstance(entry.get("tensor_meta"), dict):
            raise NotExportedError(
                f"{name} is pickled, and nothing is unpickled here: a tensor subclass or a custom object; export plain "
                "tensors"
            )
        path = folder + entry["path_name"]
        if path not in self._members:
            raise NotExportedError(f"{name}: there is no {path}")
        return path, entry["tensor_meta"]


def _members(file: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The members by their names below the one folder at the top; NotExportedError for those that are not taken."""
    members = file.infolist()
    if len(members) > _MOST_MEMBERS:
        raise NotExportedError(f"it has {len(members):,} members, allowed are {_MOST_MEMBERS:,}")
    found: dict[str, zipfile.ZipInfo] = {}
    roots = set()
    for member in members:
        root, _, name = member.filename.partition("/")
        roots.add(root)
        for fault in _member_faults(member, name):
            raise NotExportedError(f"{member.filename!r} {fault}")
        if name in found or len(roots) > 1:
            raise NotExportedError(f"{member.filename!r} is there twice, or beside another folder")
        found[name] = member
    return found


def _member_faults(member: zipfile.ZipInfo, name: str) -> Iterator[str]:
    if not name or "\\" in name or any(part in ("", ".", "..") for part in name.split("/")):
        yield "is no name of a member"
    elif name.startswith("data/aotinductor/"):
        yield "is compiled code, and nothing executable is loaded here: save the program itself with torch.export.save"
    elif not name.startswith((*_KNOWN, *_NOT_READ)):
        yield "is no member that torch.export.save writes"
    elif member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
        yield "is compressed or encrypted; torch.export.save writes members as they are"
    elif name.startswith("models/") and name != _GRAPH:
        yield f"is another program, allowed is {_GRAPH} alone"
