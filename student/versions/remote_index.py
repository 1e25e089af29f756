"""What a registry has, as one document: the index of its copy in an object store (student.versions.remote)."""

import hashlib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from runtime.folder import writing
from student.versions.names import CHAMPION, HELD, Reference, write_line
from student.versions.registry import Registry
from student.versions.version_folder import (
    MANIFEST_FILE,
    MODEL_FILE,
    VersionError,
)

FORMAT: Literal[1] = 1

File = Literal["manifest.json", "model.safetensors", "learner.safetensors", "served_metrics.safetensors"]
_Version = Annotated[str, Field(pattern=r"^v\d{6,18}$")]
_Line = Annotated[str, Field(pattern=r"^(last_version|learner_id|champion|names/[a-z][a-z0-9_-]{0,63})$")]
_OPTIONAL: tuple[File, ...] = ("learner.safetensors", "served_metrics.safetensors")
_LINES = ("last_version", "learner_id", CHAMPION)
_HISTORY = "history*.jsonl"


class Index(BaseModel):
    """What is at a URL."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = FORMAT
    learner_id: str
    versions: dict[_Version, dict[File, str]] = Field(description="version -> file name -> sha256 in hex")
    lines: dict[_Line, str] = Field(description="path in the registry -> what that small file holds")
    history: list[Annotated[str, Field(pattern=r"^history[0-9-]*\.jsonl$")]] = Field(description="names of its files")


def index_of(registry: Registry, known: Index | None) -> Index | None:
    """What a registry has; None while no learner has learnt there, or its champion is not whole.

    `known` spares reading the versions that it has. Names are read before versions, so that none stands for a version
    that came later; versions that are pruned meanwhile are left out.
    """
    lines = lines_of(registry.folder)
    if "learner_id" not in lines or CHAMPION not in lines:
        return None
    same = known.versions if known and known.learner_id == lines["learner_id"] else {}
    found = {version: same.get(version) or _digests(registry, version) for version in registry.versions()}
    versions = {version: digests for version, digests in found.items() if digests}
    if Reference(lines[CHAMPION]).version not in versions:
        return None
    history = sorted(path.name for path in (registry.folder / "names").glob(_HISTORY))
    return Index(learner_id=lines["learner_id"], versions=versions, lines=lines, history=history)


def is_same(registry: Registry, version: str, index: Index) -> bool:
    """Whether the registry has that version as the index has it."""
    try:
        data = (registry.folder / version / MANIFEST_FILE).read_bytes()
    except FileNotFoundError:
        return False
    return hashlib.sha256(data).hexdigest() == index.versions.get(version, {}).get("manifest.json")


def take_lines(folder: Path, lines: dict[str, str]) -> None:
    """Let the small files of a registry be these; the champion comes last."""
    for path, text in sorted(lines.items(), key=lambda line: line[0] == CHAMPION):
        if line_of(folder, path) != text:
            write_line(folder / path, text)
    with writing(folder):
        for path in lines_of(folder).keys() - lines.keys():
            (folder / path).unlink()


def lines_of(folder: Path) -> dict[str, str]:
    """The small files of a registry, by their path in it."""
    paths = (*_LINES, *(f"names/{name}" for name in (HELD, *Registry(folder).names.given())))
    return {path: text for path in paths if (text := line_of(folder, path)) is not None}


def line_of(folder: Path, path: str) -> str | None:
    """What a small file holds; None where there is none. VersionError when it cannot be read."""
    try:
        return (folder / path).read_bytes().decode("utf-8", "replace").strip()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise VersionError(f"{folder / path}: cannot be read: {error.strerror}") from None


def _digests(registry: Registry, version: str) -> dict[File, str] | None:
    """None where the version is gone or damaged."""
    folder = registry.folder / version
    try:
        data = (folder / MANIFEST_FILE).read_bytes()
        told = registry.load_manifest(version).sha256
    except (FileNotFoundError, VersionError):
        return None
    files: dict[File, str] = {"manifest.json": hashlib.sha256(data).hexdigest(), "model.safetensors": told[MODEL_FILE]}
    return files | {name: told[name] for name in _OPTIONAL if name in told}
