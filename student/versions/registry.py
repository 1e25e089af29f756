"""The registry of versions: a folder in which a version is there whole or not at all. No torch: the scorer imports it.

::

    FOLDER/v000042/{manifest.json, model.safetensors, learner.safetensors, served_metrics.safetensors}
    FOLDER/champion, names/  what names stand for, and who moved them (student.versions.names)
    FOLDER/last_version      the newest version that was ever begun, so that no number is used twice
    FOLDER/learner_id        names the learner that learns here, among those that learn one topic
    FOLDER/metrics/          the history of the learner's progressive metrics (student.evaluate.history)

A publish notes the version's number, writes a hidden folder, syncs it to disk, renames it, then moves `champion`,
unless a person holds that. A kill at any moment leaves either no version or a whole one; the next `claim` removes
hidden folders left behind. One learner writes versions, any number of processes read.
"""

import hashlib
import re
import shutil
import time
import uuid
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.folder import claim_folder, remove_partial_files, sync_folder, write_synced, writing
from student.versions.manifest import Draft, Manifest
from student.versions.names import CHAMPION, Move, Names, Reference, number_of, read_line, write_line
from student.versions.version_folder import (
    MANIFEST_FILE,
    Tensors,
    VersionError,
    VersionFolder,
    packed,
    refuse_non_finite,
)

LEARNER = "learner"
"""Who publishes and promotes, in the history of names."""

_LAST_FILE = "last_version"
_ID_FILE = "learner_id"
_NAME = re.compile(r"v[0-9]{6,18}")
_RESTART = "restart the learner ('graft student train'): it promotes the newest whole version"
_SPARED_MOVES = 2
"""A prune spares the versions of so many of the champion's last moves, so that one can go back."""


class Registry:
    """The versions in `folder`, which is made when it is first written to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.names = Names(folder, self.latest)

    @property
    def metrics_folder(self) -> Path:
        """The history of the learner's progressive metrics."""
        return self.folder / "metrics"

    def versions(self) -> list[str]:
        """All versions, oldest first."""
        if not self.folder.is_dir():
            return []
        return sorted((p.name for p in self.folder.iterdir() if _NAME.fullmatch(p.name)), key=number_of)

    def latest(self) -> str | None:
        """The newest version: what the learner continues from. None in an empty registry."""
        return next(reversed(self.versions()), None)

    def champion(self) -> str | None:
        """The reference of what serves; None before the first. VersionError when the file is damaged."""
        return self.names.of(CHAMPION)

    @contextmanager
    def claim(self) -> Iterator[None]:
        """Hold the registry as its one writer and remove what a killed publish or prune left behind.

        The lock ends with the process, also when it is killed. GraftError when another process holds it, or the disk
        takes no writes.
        """
        refusal = "another learner publishes here; stop it or set GRAFT_VERSIONS to another folder"
        with claim_folder(self.folder, refusal):
            remove_partial_files(self.folder)
            with writing(self.folder):
                for leftover in self.folder.glob(".*/"):
                    shutil.rmtree(leftover)
            yield

    def publish(
        self,
        draft: Draft,
        model: Tensors,
        learner: Tensors,
        learner_state: Mapping[str, Any],
        served_metrics: Tensors = MappingProxyType({}),
        by: str = LEARNER,
        *,
        promote: bool = True,
    ) -> Manifest:
        """Write the next version and make it the champion, unless that is held; `by`: who publishes.

        Without `promote` only where there is no champion yet.

        `model` is what the scorer reads, `learner` and `learner_state` (JSON values) what `load_learner` gives back,
        `served_metrics` what `load_served_metrics` does.
        VersionError, and nothing written, when a tensor of `model` is not finite; GraftError, and no version there,
        when the disk refuses.
        """
        version = self._next()
        refuse_non_finite(version, model)
        files = packed(model, learner, learner_state, served_metrics)
        manifest = Manifest(
            **dict(draft),
            version=version,
            parent=self.latest(),
            created_at_ms=time.time_ns() // 1_000_000,
            sha256={name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
        )
        files[MANIFEST_FILE] = manifest.model_dump_json(indent=1).encode()
        write_line(self.folder / _LAST_FILE, version)
        self._write(version, files)
        if promote or self.names.legible(CHAMPION) is None:
            numbers = {"examples": float(draft.examples)}
            self.names.move(CHAMPION, version, by=by, why="the newest version", numbers=numbers, unless_held=True)
        return manifest

    def point(self, name: str, reference: Reference, *, by: str, why: str, hold: bool | None = None) -> Move:
        """Let a name stand for a version that can serve; VersionError when it cannot.

        `hold` True: the champion stays until it is released, whatever is published; None: as it was before.
        """
        self.check_serves(reference)
        return self.names.move_to_present(name, str(reference), by=by, why=why, hold=hold)

    def remove_name(self, name: str, *, by: str, why: str) -> Move:
        """Take a name away from its version. VersionError when nothing has it."""
        if self.names.of(name) is None:
            raise VersionError(f"no version has the name {name!r}; names: {', '.join(self.names.all()) or 'none'}")
        move = self.names.move(name, None, by=by, why=why)
        assert move is not None  # it is None under a condition alone
        return move

    def roll_back(self, *, by: str, why: str) -> Move:
        """Make the champion before this one serve again, and hold it. VersionError when there is none that can."""
        move = None
        while move is None:  # what is read takes time, in which the champion may become another
            champion = self.champion()
            if champion is None:
                raise VersionError("there is no champion yet; 'graft student train' publishes versions")
            before = self.names.before(champion)
            advice = "'graft student promote VERSION' names the champion, and 'graft student ls' shows what there is"
            if before is None:
                raise VersionError(f"there was none before {champion}; {advice}")
            if not (self.folder / Reference(before).version).is_dir():
                raise VersionError(f"{before}, the champion before {champion}, has been pruned; {advice}")
            self.check_serves(Reference(before))
            move = self.names.move(CHAMPION, before, by=by, why=why, hold=True, only_from=champion, back=True)
        return move

    def check_serves(self, reference: Reference) -> None:
        """VersionError when what a reference stands for cannot serve."""
        self.load_model(reference.version)

    def mend_champion(self) -> str | None:
        """Promote a whole version when `champion` is missing or damaged, or names a version that is gone.

        That is the one that is held, which stays so; else the newest. Returns it; None when the champion is there, or
        no version is whole.
        """
        champion, held = self.names.legible(CHAMPION), self.names.held()
        if champion and (self.folder / Reference(champion).version).is_dir():
            return None
        why = "no champion was there"
        if held and held.to and self._is_whole(Reference(held.to).version):
            self.names.move(CHAMPION, held.to, by=LEARNER, why=f"{why}; this one is held")
            return held.to
        for version in reversed(self.versions()):
            if self._is_whole(version):
                self.names.move(CHAMPION, version, by=LEARNER, why=why, hold=False)
                return version
        return None

    def learner_id(self) -> str:
        """Names the learner of this registry among all others; made at the first call. The registry must be claimed.

        Another one after `clear`: what learns then has nothing of what was learnt before.
        """
        known = read_line(self.folder / _ID_FILE)
        if not known:
            known = uuid.uuid4().hex[:16]
            write_line(self.folder / _ID_FILE, known)
        return known

    def load_manifest(self, version: str) -> Manifest:
        """The manifest of `version`; VersionError when it is absent, damaged or of another format."""
        return self._folder_of(version).manifest()

    def load_model(self, version: str) -> tuple[Manifest, dict[str, NDArray[np.float32]]]:
        """What serves: manifest and tensors. VersionError when a file is absent or damaged, or a value not finite."""
        return self._folder_of(version).model()

    def map_model(self, version: str) -> tuple[Manifest, dict[str, NDArray[Any]]]:
        """What serves, read when it is used and not verified: for the learner, which has written it."""
        return self._folder_of(version).mapped_model()

    def load_served_metrics(self, version: str) -> dict[str, NDArray[Any]]:
        """The sums of the served metrics up to `version`; none where no learner process has published it."""
        return self._folder_of(version).served_metrics()

    def load_learner(self, version: str) -> tuple[Manifest, dict[str, NDArray[Any]], dict[str, Any]]:
        """What the learner continues from: manifest, tensors and state as they were published."""
        return self._folder_of(version).learner()

    def prune(self, keep: int, used: Collection[str] = ()) -> list[str]:
        """Remove all but the newest `keep` versions; the removed ones.

        Never those in use, what a name stands for, the champion's parent, nor the versions of its last moves.
        """
        old = self.versions()[:-keep]
        if not old:
            return []
        with self.names.locked(), writing(self.folder):  # so that nobody gives a name to what is removed
            spared = self._spared() | set(used)
            removed = [version for version in old if version not in spared]
            for version in removed:
                (self.folder / version).rename(self._doomed(version))
        with writing(self.folder):
            for version in removed:
                shutil.rmtree(self._doomed(version))
        return removed

    def _doomed(self, version: str) -> Path:
        return self.folder / f".pruned-{version}"

    def clear(self) -> list[str]:
        """Remove all versions, the champion and the history of metrics; the removed versions.

        The registry must be claimed. Numbers go on after the last one, so that no name is used twice.
        """
        removed = self.versions()
        with writing(self.folder):
            self.names.clear()  # first: they name no version that is gone
            (self.folder / _ID_FILE).unlink(missing_ok=True)
            for doomed in (*(self.folder / version for version in removed), self.metrics_folder):
                shutil.rmtree(doomed, ignore_errors=not doomed.exists())
        return removed

    def _spared(self) -> set[str | None]:
        moved = [move.to for move in self.names.history() if move.name == CHAMPION and move.to][-_SPARED_MOVES:]
        spared: set[str | None] = {Reference(to).version for to in (*self.names.all().values(), *moved)}
        champion = self.names.legible(CHAMPION)
        if champion:
            with suppress(VersionError):  # who serves it says so
                spared.add(self.load_manifest(Reference(champion).version).parent)
        return spared

    def _next(self) -> str:
        """The name after every one that is, serves, or was ever begun here."""
        path = self.folder / _LAST_FILE
        last = read_line(path)
        if last is not None and not _NAME.fullmatch(last):
            advice = "remove it, and the numbers go on after the newest version that is left"
            raise VersionError(f"{path} must hold a version such as v000001, found {last!r}; {advice}")
        champion = self.names.legible(CHAMPION)
        known = [*self.versions(), champion and Reference(champion).version, last]
        return f"v{max((number_of(version) for version in known if version), default=0) + 1:06d}"

    def _write(self, version: str, files: Mapping[str, bytes]) -> None:
        temporary = self.folder / f".{version}"
        with writing(self.folder):
            try:
                temporary.mkdir()
                for name, data in files.items():
                    write_synced(temporary / name, data)
                sync_folder(temporary)
                temporary.rename(self.folder / version)
            except Exception:
                shutil.rmtree(temporary, ignore_errors=True)  # on a full disk it holds the room that is missing
                raise
            sync_folder(self.folder)

    def _folder_of(self, version: str) -> VersionFolder:
        if not (self.folder / version).exists():
            names = self.versions()
            span = f"{names[0]} to {names[-1]}" if names else "no versions yet"
            raise VersionError(f"version {version} is not in {self.folder}; there are {span}; {_RESTART}")
        return VersionFolder(self.folder / version)

    def _is_whole(self, version: str) -> bool:
        try:
            self.load_model(version)
        except VersionError:
            return False
        return True
