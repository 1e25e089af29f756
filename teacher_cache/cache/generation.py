"""What a teacher logit means: the digest of everything that made it, see docs/decisions/019-teacher-identity.md.

Every process of a project computes it from the project folder alone, and writes and reads under it. Equal folders give
equal digests on every machine: no path, time or random number is in it.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from features.spec import FeatureSpec
from runtime.errors import ConfigurationError
from runtime.folder import file_sha256
from teacher_cache.config import KINDS, LookupInput, TeacherConfig, TeacherInput, VocabularyInput
from teacher_cache.domain.context_key import context_features
from teacher_cache.domain.domain_map_faults import LookupTableError, read_table
from teacher_cache.kinds.onnx_weights import NotOnnxError, weight_files
from teacher_cache.teacher import ServerAccess

_CONTEXT = "context in the key"
_FORMAT = 1
"""Of `made_of`: another one makes every logit a miss."""

_SHOWN_DIGITS = 12
_NO_ACCESS = ServerAccess()
_HEX = frozenset("0123456789abcdef")


class Generation(BaseModel):
    """All logits that mean the same: they were made by one teacher, behind one domain map, for one project.

    `made_of`, JSON values: the project's name, the SHA-256 of each of the teacher's files or what its server says, the
    inputs with the SHA-256 of their tables, tasks, vectors, the feature spec's id, and the context in the key if any.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")

    project: str
    made_of: dict[str, Any]

    @cached_property
    def digest(self) -> str:
        """Names the generation; 16 hexadecimal digits."""
        return _sha256(_canonical({"format": _FORMAT, **self.made_of}))[:16]

    @property
    def context(self) -> list[str]:
        """The context features by which its logits are told apart; none where the teacher sees no context."""
        return list(self.made_of.get(_CONTEXT, []))

    @property
    def key(self) -> str:
        """What stands in the keys of Redis: ``{project}:{digest}``."""
        return f"{self.project}:{self.digest}"


def generation_of(
    project: str, config: TeacherConfig, folder: Path, spec: FeatureSpec, access: ServerAccess = _NO_ACCESS
) -> Generation:
    """The generation of a project's logits. `config.version` is not in it: it is a name for people.

    Reads every byte of the teacher's files and tables: a size and a time of change tell too little. ConfigurationError
    with every file that cannot be digested. ServiceUnavailableError when the teacher's server does not answer.
    """
    faults = [f"graft.toml: {fault}" for fault in config.kind_faults]
    artefact = {} if faults else _artefact(config, folder, access, faults)
    inputs = {name: _input(name, given, folder, faults) for name, given in config.inputs.items()}
    if faults:
        raise ConfigurationError(faults)
    made_of = {
        "project": project,
        **artefact,
        "inputs": inputs,
        "tasks": [task.model_dump() for task in config.tasks],
        "vectors": [vector.model_dump() for vector in config.vectors],
        "feature spec": spec.spec_id,
    }
    if context := context_features(config, spec):  # beside the inputs: without it logits had no context in their key
        made_of[_CONTEXT] = context
    return Generation(project=project, made_of=made_of)


def stamps(config: TeacherConfig, folder: Path) -> list[tuple[int, ...]]:
    """Of each file that a generation is made of: inode, bytes, times of change. None of files that cannot be read.

    The same before and after a process has read them: they were not replaced meanwhile. Over longer times this says
    nothing.
    """
    tables = [
        folder / i.file for i in config.inputs.values() if isinstance(i, LookupInput | VocabularyInput) and i.file
    ]
    try:
        found = [path.stat() for path in (*teacher_files(config, folder).values(), *tables)]
    except (OSError, NotOnnxError):
        return []
    return [(one.st_ino, one.st_size, one.st_mtime_ns, one.st_ctime_ns) for one in found]


def differences(old: Generation, new: Generation) -> list[str]:
    """What of `new` is not as in `old`, each as ``teacher.inputs.age.default: was 7, is 8``."""
    return list(_differences("", old.made_of, new.made_of))


def teacher_files(config: TeacherConfig, folder: Path) -> dict[str, Path]:
    """The teacher's own files, by what they are in a generation: an ONNX file with its weights, or a dump.

    None of a server, and of a folder into which files are delivered. NotOnnxError, OSError when they are not known.
    """
    if config.onnx is not None:
        model = folder / config.onnx
        return {"onnx": model, **{f"weights {name}": model.parent / name for name in weight_files(model)}}
    if config.dump is not None and not (folder / config.dump.path).is_dir():
        return {"dump": folder / config.dump.path}
    return {}


def _artefact(config: TeacherConfig, folder: Path, access: ServerAccess, faults: list[str]) -> dict[str, Any]:
    """The SHA-256 of the teacher's files; of a server and of a dump what is said of their model."""
    if config.server is not None:
        from teacher_cache.kinds.model_server import read_metadata  # noqa: PLC0415 - loaded where there is a server

        return {"server": read_metadata(config.server, access).made_of()}
    told = {} if config.dump is None else {"dump": config.dump.model_dump(include={"model", "keys"})}
    key = next(kind for kind in KINDS if getattr(config, kind) is not None)
    try:
        files = {name: file_sha256(path) for name, path in teacher_files(config, folder).items()}
    except OSError as error:
        faults.append(f"graft.toml: teacher.{key}: {error.filename or folder} cannot be read: {error.strerror}")
    except NotOnnxError as error:
        faults.append(f"graft.toml: teacher.{key}: {folder / (config.onnx or '')} cannot be digested: {error}")
    else:
        return {"files": files, **told}
    return {}


def _input(name: str, given: TeacherInput, folder: Path, faults: list[str]) -> dict[str, Any]:
    """An input's settings; of a table its content alone, wherever it stands."""
    if not isinstance(given, LookupInput | VocabularyInput):
        return given.model_dump(exclude_none=True)
    settings = given.model_dump(exclude={"table", "file"})
    try:
        return {**settings, "table": _sha256(_canonical(dict(read_table(given, folder))))}
    except LookupTableError as error:
        faults.append(f"graft.toml: teacher.inputs.{name}: {error}")
    return settings


def _canonical(value: Any) -> bytes:
    """JSON that equal values have alike, whatever their order was."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _differences(path: str, old: Any, new: Any) -> Iterator[str]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in {**old, **new}:
            yield from _differences(f"{path}.{key}" if path else key, old.get(key), new.get(key))
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for n, pair in enumerate(zip(old, new, strict=True)):
            yield from _differences(f"{path}.{n}", *pair)
    elif _canonical(old) != _canonical(new):  # 0.0 equals -0.0, and 1 equals 1.0
        yield f"{path}: was {_shown(old)}, is {_shown(new)}"


def _shown(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, str) and len(value) == 64 and set(value) <= _HEX:
        return f"a file or table with SHA-256 {value[:_SHOWN_DIGITS]}..."
    return json.dumps(value)
