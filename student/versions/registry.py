"""The registry of versions: a folder in which a version is there whole or not at all. No torch: the scorer imports it.

::

    FOLDER/v000042/{manifest.json, model.safetensors, learner.safetensors}
    FOLDER/champion          the version that serves: its name, replaced atomically
    FOLDER/metrics/          the history of the learner's progressive metrics (student.evaluate.history)

A publish writes a hidden folder, syncs it to disk, renames it, then moves `champion`. A kill at any moment leaves
either no version or a whole one; the next `claim` removes hidden folders left behind. One learner writes, any number
of processes read.
"""

import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray
from pydantic import ValidationError

from runtime.errors import GraftError
from runtime.folder import claim_folder, sync_folder
from student.versions.manifest import FORMAT, Draft, Manifest

MANIFEST_FILE = "manifest.json"
MODEL_FILE = "model.safetensors"
LEARNER_FILE = "learner.safetensors"
_CHAMPION_FILE = "champion"
_STATE_KEY = "state"
_NAME = re.compile(r"v\d{6,}")

Tensors = Mapping[str, NDArray[Any]]


class VersionError(GraftError):
    """A version that cannot be used: absent, damaged, of another format, or with values that are not finite."""


class Registry:
    """The versions in `folder`, which is made when it is first written to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def metrics_folder(self) -> Path:
        """The history of the learner's progressive metrics."""
        return self.folder / "metrics"

    def versions(self) -> list[str]:
        """All versions, oldest first."""
        if not self.folder.is_dir():
            return []
        return sorted((p.name for p in self.folder.iterdir() if _NAME.fullmatch(p.name)), key=_number)

    def latest(self) -> str | None:
        """The newest version: what the learner continues from. None in an empty registry."""
        return next(reversed(self.versions()), None)

    def champion(self) -> str | None:
        """The version that serves; None before the first."""
        try:
            name = (self.folder / _CHAMPION_FILE).read_text("ascii").strip()
        except FileNotFoundError:
            return None
        if not _NAME.fullmatch(name):
            raise VersionError(f"{self.folder / _CHAMPION_FILE} must hold a version such as v000001, found {name!r}")
        return name

    @contextmanager
    def claim(self) -> Iterator[None]:
        """Hold the registry as its one writer and remove what a killed publish or prune left behind.

        The lock ends with the process, also when it is killed. GraftError when another process holds it.
        """
        refusal = "another learner publishes here; stop it or set GRAFT_VERSIONS to another folder"
        with claim_folder(self.folder, refusal):
            for leftover in self.folder.glob(".*/"):
                shutil.rmtree(leftover)
            yield

    def publish(self, draft: Draft, model: Tensors, learner: Tensors, learner_state: Mapping[str, Any]) -> Manifest:
        """Write the next version and make it the champion.

        `model` is what the scorer reads, `learner` and `learner_state` (JSON values) what `load_learner` gives back.
        VersionError, and nothing written, when a tensor of `model` is not finite.
        """
        parent = self.latest()
        version = f"v{_number(parent) + 1 if parent else 1:06d}"
        _refuse_non_finite(version, model)
        files = {
            MODEL_FILE: safetensors.numpy.save(_contiguous(model)),
            LEARNER_FILE: safetensors.numpy.save(_contiguous(learner), {_STATE_KEY: json.dumps(learner_state)}),
        }
        manifest = Manifest(
            **dict(draft),
            version=version,
            parent=parent,
            created_at_ms=time.time_ns() // 1_000_000,
            sha256={name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
        )
        files[MANIFEST_FILE] = manifest.model_dump_json(indent=1).encode()
        self._write(version, files)
        self.promote(version)
        return manifest

    def promote(self, version: str) -> None:
        """Make `version` the champion: the scorer swaps to it."""
        if not (self.folder / version / MANIFEST_FILE).is_file():
            raise VersionError(f"version {version} is not in {self.folder}; there are {self._span()}")
        temporary = self.folder / f".{_CHAMPION_FILE}"
        _write_synced(temporary, version.encode() + b"\n")
        temporary.replace(self.folder / _CHAMPION_FILE)
        sync_folder(self.folder)

    def load_manifest(self, version: str) -> Manifest:
        """The manifest of `version`; VersionError when it is absent or of another format."""
        path = self.folder / version / MANIFEST_FILE
        try:
            fields = json.loads(path.read_bytes())
        except FileNotFoundError:
            raise VersionError(f"version {version} is not in {self.folder}; there are {self._span()}") from None
        except ValueError as error:
            raise VersionError(f"version {version}: {MANIFEST_FILE} is not JSON: {error}") from None
        found = fields.get("format") if isinstance(fields, dict) else None
        if found != FORMAT:
            raise VersionError(f"version {version}: {MANIFEST_FILE}: format must be {FORMAT}, found {found!r}")
        try:
            return Manifest.model_validate(fields)
        except ValidationError as error:
            raise VersionError(f"version {version}: {MANIFEST_FILE}: {error}") from None

    def load_model(self, version: str) -> tuple[Manifest, dict[str, NDArray[np.float32]]]:
        """What serves: manifest and tensors. VersionError when a file is absent or damaged, or a value not finite."""
        manifest = self.load_manifest(version)
        tensors = safetensors.numpy.load(self._verified(manifest, MODEL_FILE))
        _refuse_non_finite(version, tensors)
        return manifest, tensors

    def load_learner(self, version: str) -> tuple[Manifest, dict[str, NDArray[Any]], dict[str, Any]]:
        """What the learner continues from: manifest, tensors and state as they were published."""
        manifest = self.load_manifest(version)
        tensors = safetensors.numpy.load(self._verified(manifest, LEARNER_FILE))
        with safetensors.safe_open(self.folder / version / LEARNER_FILE, "numpy") as file:
            state: dict[str, Any] = json.loads(file.metadata()[_STATE_KEY])
        return manifest, tensors, state

    def prune(self, keep: int) -> list[str]:
        """Remove all but the newest `keep` versions; never the champion, nor its parent. Returns the removed ones."""
        champion = self.champion()
        spared = {champion, self.load_manifest(champion).parent} if champion else set()
        removed = [version for version in self.versions()[:-keep] if version not in spared]
        for version in removed:
            doomed = self.folder / f".pruned-{version}"
            (self.folder / version).rename(doomed)
            shutil.rmtree(doomed)
        return removed

    def _write(self, version: str, files: Mapping[str, bytes]) -> None:
        temporary = self.folder / f".{version}"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        for name, data in files.items():
            _write_synced(temporary / name, data)
        sync_folder(temporary)
        temporary.rename(self.folder / version)
        sync_folder(self.folder)

    def _verified(self, manifest: Manifest, name: str) -> bytes:
        """The file's bytes, of which the manifest's digest is known to hold."""
        try:
            data = (self.folder / manifest.version / name).read_bytes()
        except FileNotFoundError:
            raise VersionError(f"version {manifest.version}: {name} is missing in {self.folder}") from None
        expected, found = manifest.sha256.get(name), hashlib.sha256(data).hexdigest()
        if found != expected:
            raise VersionError(
                f"version {manifest.version}: {name}: sha256 must be {expected}, found {found}; "
                f"the file is damaged: remove the folder {self.folder / manifest.version} to use the version before it"
            )
        return data

    def _span(self) -> str:
        names = self.versions()
        return f"{names[0]} to {names[-1]}" if names else "no versions yet"


def _refuse_non_finite(version: str, tensors: Tensors) -> None:
    for name, tensor in tensors.items():
        bad = int(tensor.size - np.isfinite(tensor).sum())
        if bad:
            raise VersionError(
                f"version {version}: {MODEL_FILE}: {name} must be finite, found {bad} of {tensor.size} values that are "
                "not; the version before it stays"
            )


def _contiguous(tensors: Tensors) -> dict[str, NDArray[Any]]:
    return {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}


def _number(version: str) -> int:
    return int(version.removeprefix("v"))


def _write_synced(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
