"""Loads the teacher of a project: the one place that knows every kind."""

from pathlib import Path

from runtime.errors import ConfigurationError
from teacher_cache.config import TeacherConfig
from teacher_cache.teacher import ServerAccess, Teacher

_NO_ACCESS = ServerAccess()


def load_teacher(config: TeacherConfig, folder: Path, access: ServerAccess = _NO_ACCESS) -> Teacher:
    """The teacher that `config` names; a relative path starts at `folder`. ConfigurationError with all faults.

    Imports only what its kind needs. ServiceUnavailableError when a server does not tell its signature.
    """
    if config.kind_faults:
        raise ConfigurationError([f"graft.toml: {fault}" for fault in config.kind_faults])
    if config.server is not None:
        from teacher_cache.kinds.served_teacher import open_served  # noqa: PLC0415

        return open_served(config.server, access, config.tasks, config.vectors)
    if config.dump is not None:
        from teacher_cache.kinds.dumped_teacher import DumpedTeacher  # noqa: PLC0415

        return DumpedTeacher(config.dump, folder, config.tasks, config.vectors)
    from teacher_cache.kinds.onnx_teacher import open_onnx  # noqa: PLC0415 - onnxruntime

    assert config.onnx is not None
    return open_onnx(folder / config.onnx, config.tasks, config.vectors)
