"""Brings a project into the folder of a stack, into Redis and into the registry, each only where that is not done.

Each place says itself what has been done for it, so one that was lost is set up again without the others:

    folder           .set-up.json: whose files these are, their names, and their digest unless it changes now
    Redis            graft:set-up:{project}  ->  the digest whose features and profiles it has
    registry         any version
"""

import hashlib
import shutil
import tomllib
from collections.abc import Callable
from importlib.metadata import version
from io import BufferedReader
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from graft.project import FILE_NAME, Project
from runtime.errors import ConfigurationError, GraftError
from runtime.folder import claim_folder, remove_partial_files, replacing
from runtime.redis import connect, reaching
from student.versions.registry import Registry

MARK = ".set-up.json"
_CACHE = "__pycache__"
_ANEW = "docker compose run --rm --no-deps graft reset --versions --yes"

Step = Callable[..., None]
"""Runs one command of graft, given by a project folder and its words; raises where it fails."""


class Mark(BaseModel):
    """What a project folder has been set up for. `files` are the names of those that may have been copied."""

    model_config = ConfigDict(frozen=True)

    pair: str
    """The project's name; files of earlier releases have it under this key."""
    digest: str
    files: list[str]


def set_up(project: Project, folder: Path, redis_url: str, registry: Registry, step: Step) -> list[str]:
    """Set up `folder`, Redis and `registry` for a project where that is to be done; what was done, in words.

    ConfigurationError, and nothing is changed, where the folder is another project's, or where a student has been
    learnt that cannot go on with what the project is now. A call that was killed can be repeated.
    """
    refusal = "another 'graft set-up' works there; wait until it has ended, then start again"
    with claim_folder(folder, refusal):
        remove_partial_files(folder, "**")
        mark, files = _mark_of(folder), files_of(project.folder)
        _refuse_other_project(project, folder, mark)
        digest = _digest(project.folder, files)
        done = []
        if mark is None or mark.digest != digest:
            _refuse_other_student(project, redis_url, registry)
            step(project.folder, "check")
            former = mark.files if mark else []
            # Killed from here on, the folder is set up for nothing: neither for this project nor for the one before.
            _write_mark(folder, Mark(pair=project.name, digest="", files=sorted({*former, *files})))
            _copy(project.folder, files, folder, former)
            step(folder, "features", "apply")
            _write_mark(folder, Mark(pair=project.name, digest=digest, files=files))
            still = " (what runs has the former ones until it is restarted)" if mark else ""
            done.append(f"files of {project.name!r}{still}")
        with connect(redis_url) as client, reaching(redis_url):
            key = f"graft:set-up:{project.name}"
            if client.get(key) != digest.encode():
                client.delete(key)  # as above
                step(folder, "features", "materialize")
                if project.teacher is not None:
                    step(folder, "teacher", "backfill", "--profiles")
                client.set(key, digest)
                done.append("features and profiles in Redis")
        if registry.latest() is None and project.teacher is not None:
            step(folder, "student", "bootstrap")
            done.append("a first version")
        return done


def files_of(folder: Path) -> list[str]:
    """The names of a project's files, relative to its folder, in order."""
    files = (path for path in folder.rglob("*") if path.is_file() and _CACHE not in path.parts)
    return sorted(str(path.relative_to(folder)) for path in files if path.name != MARK)


def _digest(folder: Path, files: list[str]) -> str:
    """Of all files and of this release, which may set up more than the one before."""
    digest = hashlib.sha256(version("graft").encode())
    for name in files:
        with _opened(folder / name) as file:
            digest.update(f"\0{name}\0".encode("utf-8", "surrogateescape"))
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _copy(source_folder: Path, files: list[str], folder: Path, former: list[str]) -> None:
    """Copy the files, each whole; what an earlier set-up has copied and the project no longer has is removed."""
    for name in set(former) - set(files):
        (folder / name).unlink(missing_ok=True)
    for name in files:
        with _opened(source_folder / name) as source, replacing(folder / name) as target:
            shutil.copyfileobj(source, target)


def _opened(path: Path) -> BufferedReader:
    try:
        return path.open("rb")
    except OSError as error:
        raise GraftError(
            f"{path}: cannot be read: {error.strerror}; every user must be allowed to read a project's files: "
            "chmod -R a+rX its folder"
        ) from error


def _mark_of(folder: Path) -> Mark | None:
    """What the folder has been set up for; None where it is not known, as after a set-up of an earlier release."""
    try:
        return Mark.model_validate_json((folder / MARK).read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise GraftError(f"{folder / MARK}: cannot be read; remove it, and the set-up is made again") from error


def _write_mark(folder: Path, mark: Mark) -> None:
    with replacing(folder / MARK) as file:
        file.write(mark.model_dump_json().encode())


def _refuse_other_project(project: Project, folder: Path, mark: Mark | None) -> None:
    present = mark.pair if mark else _named_in(folder / FILE_NAME) or project.name
    if present != project.name:
        other = f"the project {present!r}, and {project.folder} is {project.name!r}"
        beside = f"SCORER_PORT=8081 docker compose --project-name graft-{project.name} up"
        raise ConfigurationError(
            [
                f"{folder}: is set up for {other}; nothing was changed",
                f"to run {project.name!r} beside {present!r}, keep GRAFT_PROJECT and say: {beside}",
                f"to go on with {present!r}: set GRAFT_PROJECT to its folder again",
                f"to remove all of {present!r}, then start with {project.name!r}: docker compose down --volumes",
            ]
        )


def _named_in(path: Path) -> str | None:
    """The project's name in a graft.toml that may be of an earlier release; None where there is none."""
    try:
        return str(tomllib.loads(path.read_text("utf-8")).get("name"))
    except (OSError, ValueError):
        return None


def _refuse_other_student(project: Project, redis_url: str, registry: Registry) -> None:
    latest = registry.latest()
    if latest is None:
        return
    from features.repo.store import compile_spec  # noqa: PLC0415 - Feast, which most set-ups do without

    setup = project.learner_setup(compile_spec(project.repo, redis_url, project.features))
    try:
        setup.check_continues(latest, registry.load_learner(latest)[2]["setup"])
    except ConfigurationError as error:
        raise ConfigurationError(
            [
                *error.faults,
                f"nothing was changed; to learn this project anew, stop the learner, then: {_ANEW}",
                "or give it volumes of its own: SCORER_PORT=8081 docker compose --project-name NAME up",
            ]
        ) from error
