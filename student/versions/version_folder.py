"""One version's folder: its files, checked whenever they are read. No torch: the scorer imports it."""

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray
from pydantic import ValidationError

from runtime.errors import GraftError
from student.versions.manifest import FORMAT, Manifest
from student.versions.served_tensors import tensor_shapes

MANIFEST_FILE = "manifest.json"
MODEL_FILE = "model.safetensors"
LEARNER_FILE = "learner.safetensors"
SERVED_METRICS_FILE = "served_metrics.safetensors"
MOST_MANIFEST_BYTES = 4 << 20
"""A manifest of 500 features, ten tasks and all slices has 0.4 MiB."""

_STATE_KEY = "state"
_CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
"""Where Linux tells a container its limit, in cgroups of version 2 and 1; "max" or a huge number: none."""

Tensors = Mapping[str, NDArray[Any]]
Bytes = NDArray[np.uint8]


class VersionError(GraftError):
    """A version that cannot be used: absent, damaged, of another format, or with values that are not finite."""


class VersionFolder:
    """The folder of a published version. What it reads raises VersionError when a file is missing or damaged."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._version = path.name

    def manifest(self) -> Manifest:
        """The manifest; VersionError too when it is of another format."""
        fields = self._manifest_fields()
        found = fields.get("format")
        if found != FORMAT:
            raise VersionError(
                f"version {self._version}: {MANIFEST_FILE}: format must be {FORMAT}, found {found!r}; "
                "use the release of graft that published it; to learn anew: 'graft reset --versions'"
            )
        try:
            manifest = Manifest.model_validate(fields)
        except ValidationError as error:
            fault = error.errors()[0]
            key = ".".join(map(str, fault["loc"]))
            raise self._damaged(f"{MANIFEST_FILE}: {key}: {fault['msg']}") from None
        if manifest.version != self._version:
            raise self._damaged(f"{MANIFEST_FILE}: version must be {self._version}, found {manifest.version}")
        return manifest

    def model(self) -> tuple[Manifest, dict[str, NDArray[np.float32]]]:
        """What serves: manifest and tensors, mapped read-only: processes that serve one version share its memory.

        The folder may be removed meanwhile, but the file may not be written to. VersionError too when a value is not
        finite.
        """
        manifest = self.manifest()
        content = self._map_model(manifest)
        self._verify(manifest, MODEL_FILE, content.data)
        tensors = self._tensors_in(content)
        refuse_non_finite(self._version, tensors)
        return manifest, tensors

    def mapped_model(self) -> tuple[Manifest, dict[str, NDArray[Any]]]:
        """As `model`, but the tensors are mapped: read when they are used, whatever becomes of the folder later.

        Their digest is not verified: for the process that has written them.
        """
        manifest = self.manifest()
        return manifest, self._tensors_in(self._map_model(manifest))

    def served_metrics(self) -> dict[str, NDArray[Any]]:
        """The sums of the served metrics; none in a version that was not published by a learner process."""
        manifest = self.manifest()
        if SERVED_METRICS_FILE not in manifest.sha256:
            return {}
        return self._loaded(manifest, SERVED_METRICS_FILE)

    def learner(self) -> tuple[Manifest, dict[str, NDArray[Any]], dict[str, Any]]:
        """What the learner continues from: manifest, tensors and state as they were published."""
        manifest = self.manifest()
        tensors = self._loaded(manifest, LEARNER_FILE)
        with safetensors.safe_open(self._path / LEARNER_FILE, "numpy") as file:
            state: dict[str, Any] = json.loads(file.metadata()[_STATE_KEY])
        return manifest, tensors, state

    def _manifest_fields(self) -> dict[str, Any]:
        size = self._size(MANIFEST_FILE)
        if size > MOST_MANIFEST_BYTES:
            raise self._damaged(f"{MANIFEST_FILE} must have at most {MOST_MANIFEST_BYTES:,} bytes, found {size:,}")
        try:
            fields = json.loads(self._read(MANIFEST_FILE))
        except (ValueError, RecursionError) as error:
            raise self._damaged(f"{MANIFEST_FILE} is not JSON: {error}") from None
        if not isinstance(fields, dict):
            raise self._damaged(f"{MANIFEST_FILE} must hold a JSON object, found {type(fields).__name__}")
        return fields

    def _loaded(self, manifest: Manifest, name: str) -> dict[str, NDArray[Any]]:
        """The file's tensors, once the manifest's digest is known to hold of it."""
        data = self._read(name)
        self._verify(manifest, name, data)
        try:
            return safetensors.numpy.load(data)
        except (safetensors.SafetensorError, KeyError) as error:  # KeyError: a dtype that numpy does not have
            raise self._no_safetensors(name, error) from None

    def _verify(self, manifest: Manifest, name: str, content: bytes | memoryview) -> None:
        expected, found = manifest.sha256.get(name), hashlib.sha256(content).hexdigest()
        if found != expected:
            raise self._damaged(f"{name}: sha256 must be {expected}, found {found}")

    def _read(self, name: str) -> bytes:
        with self._readable(name):
            return (self._path / name).read_bytes()

    def _size(self, name: str) -> int:
        with self._readable(name):
            return (self._path / name).stat().st_size

    def _map_model(self, manifest: Manifest) -> Bytes:
        """VersionError too when the model, or what the manifest claims of it, is larger than the memory."""
        size = self._size(MODEL_FILE)
        claimed = sum(4 * math.prod(shape) for shape in tensor_shapes(manifest).values())
        needed, memory = max(claimed, size), _memory_bytes()
        if needed > memory:
            raise VersionError(
                f"version {self._version}: its model must fit into {memory >> 20:,} MiB of memory, and needs "
                f"{needed >> 20:,} MiB; serve it on a larger machine, or set student.table_rows and student.trunk lower"
            )
        with self._readable(MODEL_FILE):
            # Nothing can be mapped of an empty file.
            return np.memmap(self._path / MODEL_FILE, np.uint8, "r") if size else np.zeros(0, np.uint8)

    @contextmanager
    def _readable(self, name: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise self._damaged(f"{name} is missing") from None
        except OSError as error:
            fault = f"{self._path / name}: cannot be read: {error.strerror}"
            raise VersionError(f"version {self._version}: {fault}") from None

    def _tensors_in(self, content: Bytes) -> dict[str, NDArray[Any]]:
        try:
            return _views(content)
        except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
            raise self._no_safetensors(MODEL_FILE, error) from None

    def _no_safetensors(self, name: str, error: Exception) -> VersionError:
        return self._damaged(f"{name} is not safetensors: {error}")

    def _damaged(self, fault: str) -> VersionError:
        return VersionError(
            f"version {self._version}: {fault}; remove the folder {self._path} and restart the learner "
            "('graft student train'): it goes on from the newest version that is left, and makes that the champion"
        )


def packed(
    model: Tensors, learner: Tensors, learner_state: Mapping[str, Any], served_metrics: Tensors
) -> dict[str, bytes]:
    """The files of a version beside its manifest: name -> content. No file of served metrics where there are none."""
    files = {
        MODEL_FILE: safetensors.numpy.save(_contiguous(model)),
        LEARNER_FILE: safetensors.numpy.save(_contiguous(learner), {_STATE_KEY: json.dumps(learner_state)}),
    }
    if served_metrics:
        files[SERVED_METRICS_FILE] = safetensors.numpy.save(_contiguous(served_metrics))
    return files


def refuse_non_finite(version: str, tensors: Tensors) -> None:
    """VersionError, with the first such tensor of a served student, when a value is not finite."""
    for name, tensor in tensors.items():
        bad = int(tensor.size - np.isfinite(tensor).sum())
        if bad:
            raise VersionError(
                f"version {version}: {MODEL_FILE}: {name} must be finite, found {bad} of {tensor.size} values that are "
                "not; the version before it stays"
            )


def _views(content: Bytes) -> dict[str, NDArray[Any]]:
    """The tensors of a safetensors file as views of its content; the format: huggingface.co/docs/safetensors."""
    first = 8 + int(content[:8].view("<u8")[0])
    tensors = {}
    for name, told in json.loads(content[8:first].tobytes()).items():
        if name != "__metadata__":
            begin, end = told["data_offsets"]
            if not 0 <= begin <= end:
                raise ValueError(f"{name} cannot begin at {begin} and end at {end}")
            flat = content[first + begin : first + end].view(_DTYPES[told["dtype"]])
            tensors[name] = flat.reshape(told["shape"]).view(np.ndarray)
    return tensors


_DTYPES = {"F32": "<f4", "U64": "<u8"}
"""Those that a model has."""


def _contiguous(tensors: Tensors) -> dict[str, NDArray[Any]]:
    return {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}


def _memory_bytes() -> int:
    """The machine's memory, or the container's limit where that is lower."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in _CGROUP_LIMITS:
        with suppress(OSError, ValueError):
            limits.append(int(path.read_text()))
    return min(limits)
