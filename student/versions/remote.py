"""The registry in an object store (S3, or any other that fsspec knows): pushed by the learner's side, pulled by others.

::

    URL/versions/v000042/{manifest.json, model.safetensors, ...}   never changed; written before the index names them
    URL/history/*.jsonl      the moves of names; behind the index at most
    URL/index.json           what there is, and what each name stands for; replaced whole, last

An object store has neither locks nor renames. One object, the index, decides: a pull sees the registry as it was at one
moment, and downloads what it does not have. One learner pushes to a URL.
"""

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import fsspec
from pydantic import Field, ValidationError

from runtime.errors import ConfigurationError, GraftError, ServiceUnavailableError
from runtime.folder import replacing, sync_folder, write_synced, writing
from runtime.frozen_model import FrozenModel
from student.versions.names import CHAMPION, HELD, Reference, read_line, write_line
from student.versions.registry import Registry
from student.versions.version_folder import MANIFEST_FILE, MODEL_FILE, VersionError

FORMAT: Literal[1] = 1

File = Literal["manifest.json", "model.safetensors", "learner.safetensors", "served_metrics.safetensors"]
_Version = Annotated[str, Field(pattern=r"^v\d{6,18}$")]
_Line = Annotated[str, Field(pattern=r"^(last_version|learner_id|champion|names/[a-z][a-z0-9_-]{0,63})$")]
_OPTIONAL: tuple[File, ...] = ("learner.safetensors", "served_metrics.safetensors")
_LINES = ("last_version", "learner_id", CHAMPION)
_HISTORY = "history*.jsonl"


class Index(FrozenModel):
    """What is at a URL."""

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
        if read_line(folder / path) != text:
            write_line(folder / path, text)
    with writing(folder):
        for path in lines_of(folder).keys() - lines.keys():
            (folder / path).unlink()


def lines_of(folder: Path) -> dict[str, str]:
    """The small files of a registry, by their path in it."""
    paths = (*_LINES, *(f"names/{name}" for name in (HELD, *Registry(folder).names.given())))
    return {path: text for path in paths if (text := read_line(folder / path)) is not None}


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


_INDEX = "index.json"
_FOLLOWS = "pulled_from"
_SERVED = (MANIFEST_FILE, MODEL_FILE)


class RemoteRegistry:
    """The registry at `url`, such as ``s3://bucket/shop``. ConfigurationError where fsspec does not know such URLs."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        try:
            self._store, self._root = fsspec.url_to_fs(self.url)
        except (ImportError, ValueError) as error:
            raise ConfigurationError([f"{url}: {error}; for S3: pip install 'graft[s3]'"]) from None
        self._pushed: Index | None = None
        self._followed: Index | None = None

    def push(self, registry: Registry) -> list[str]:
        """Upload what the URL does not have, then move its names; the uploaded versions.

        Does nothing while no learner has learnt here. GraftError where another learner's versions are at the URL;
        ServiceUnavailableError when the store does not answer.
        """
        with self._reaching():
            there = self._pushed or self.index()
            wanted = index_of(registry, there)
            if wanted is None or wanted == there:
                self._pushed = there
                return []
            if there is not None and there.learner_id != wanted.learner_id:
                raise GraftError(
                    f"{self.url}: has the versions of another learner ({there.learner_id}); name another URL, or get "
                    "that one's versions first: graft student pull URL, into an empty GRAFT_VERSIONS"
                )
            new = [version for version in wanted.versions if there is None or version not in there.versions]
            for version in new:
                for name in wanted.versions[version]:
                    self._store.put_file(str(registry.folder / version / name), self._path("versions", version, name))
            for moves in wanted.history:
                self._store.put_file(str(registry.folder / "names" / moves), self._path("history", moves))
            self._store.pipe_file(self._path(_INDEX), wanted.model_dump_json(indent=1).encode())
            if there is not None:  # nobody who reads the index from now on asks for these
                self._remove({version: there.versions[version] for version in there.versions.keys() - wanted.versions})
            self._pushed = wanted
            return new

    def restore(self, registry: Registry) -> list[str]:
        """Download everything into an empty registry, so that a learner goes on there; the downloaded versions.

        The registry must be claimed. GraftError where it has versions; VersionError when a file is damaged.
        """
        if registry.versions():
            raise GraftError(f"{registry.folder}: has versions; set GRAFT_VERSIONS to an empty folder")
        with self._reaching():
            index = self.index()
            if index is None:
                return []
            for version, files in index.versions.items():
                self._download(registry.folder, version, files)
            for name in index.history:
                with replacing(registry.folder / "names" / name) as file:
                    file.write(self._store.cat_file(self._path("history", name)))
            take_lines(registry.folder, index.lines)
            return [*index.versions]

    def follow(self, registry: Registry) -> list[str]:
        """Let `registry` have what a scorer reads of the versions at the URL, and their names; the downloaded versions.

        The registry must be claimed. What the URL does not have is removed, so GraftError where another than a `follow`
        of this URL has put versions there. VersionError when a file is damaged.
        """
        _refuse_other_folder(registry, self.url)
        with self._reaching():
            index = self.index()
            if index is None or index == self._followed:
                return []
            there = {version for version in registry.versions() if is_same(registry, version, index)}
            new = [version for version in index.versions if version not in there]
            for version in new:
                files = {name: digest for name, digest in index.versions[version].items() if name in _SERVED}
                self._download(registry.folder, version, files)
        take_lines(registry.folder, index.lines)
        with writing(registry.folder):
            for version in set(registry.versions()) - index.versions.keys():
                shutil.rmtree(registry.folder / version)
        self._followed = index
        return new

    def index(self) -> Index | None:
        """What is there; None where nothing has been pushed. GraftError where it is damaged or of another format."""
        try:
            return Index.model_validate_json(self._store.cat_file(self._path(_INDEX)))
        except FileNotFoundError:
            return None
        except ValidationError as error:
            fault = error.errors()[0]
            where = ".".join(map(str, fault["loc"]))
            raise GraftError(
                f"{self.url}/{_INDEX}: {where}: {fault['msg']}; use the release of graft that wrote it, or name "
                "another URL"
            ) from None

    def _download(self, folder: Path, version: str, files: dict[File, str]) -> None:
        """A version's folder, whole or not at all; it takes the place of another learner's of that number."""
        content = {name: self._store.cat_file(self._path("versions", version, name)) for name in files}
        for name, digest in files.items():
            if hashlib.sha256(content[name]).hexdigest() != digest:
                raise VersionError(f"{self.url}/versions/{version}/{name}: its sha256 must be {digest}, and is not")
        hidden = folder / f".{version}"
        with writing(folder):
            shutil.rmtree(hidden, ignore_errors=True)
            hidden.mkdir()
            for name, data in content.items():
                write_synced(hidden / name, data)
            sync_folder(hidden)
            shutil.rmtree(folder / version, ignore_errors=True)
            hidden.rename(folder / version)
            sync_folder(folder)

    def _remove(self, versions: dict[str, dict[File, str]]) -> None:
        for version, files in versions.items():
            for name in files:
                self._store.rm_file(self._path("versions", version, name))

    def _path(self, *parts: str) -> str:
        return "/".join((self._root, *parts))

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        """Errors of the store become ours; those of the folder have been made so before."""
        try:
            yield
        except GraftError:
            raise
        except PermissionError as error:
            raise GraftError(f"{self.url}: the store refuses: {error}; give this process the right to it") from error
        except Exception as error:
            library = type(error).__module__.partition(".")[0]
            if not isinstance(error, OSError) and library not in {"botocore", "aiobotocore", "aiohttp"}:
                raise
            raise ServiceUnavailableError(f"{self.url}: the store does not answer: {error}") from error


def _refuse_other_folder(registry: Registry, url: str) -> None:
    known = read_line(registry.folder / _FOLLOWS)
    if known != url and (known is not None or registry.versions()):
        raise GraftError(
            f"{registry.folder}: has versions that were not pulled from {url}; set GRAFT_VERSIONS to an empty folder"
        )
    if known is None:
        write_line(registry.folder / _FOLLOWS, url)
