"""The project file: one domain pair as data. Reads and validates graft.toml; every fault is reported at once."""

import tomllib
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from features.config import FeaturesConfig
from graft.errors import ConfigurationError
from stream.config import StreamConfig, Topics
from stream.tasks import TaskSpec
from student.config import DistillationConfig, PublishConfig, StudentConfig
from teacher_cache.config import TeacherConfig

FILE_NAME = "graft.toml"


class Project(BaseModel):
    """A loaded graft.toml; relative paths in it start at `folder`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    folder: Path = Field(exclude=True)
    name: str = Field(pattern=r"^[a-z][a-z0-9_-]*$")
    tasks: list[TaskSpec] = Field(min_length=1)
    stream: StreamConfig = StreamConfig()
    features: FeaturesConfig
    teacher: TeacherConfig
    distillation: list[DistillationConfig] = []
    student: StudentConfig = StudentConfig()
    publish: PublishConfig = PublishConfig()

    @property
    def topics(self) -> Topics:
        """The names of this pair's topics."""
        return Topics(prefix=self.stream.topic_prefix)


def load_project(folder: Path) -> Project:
    """Read `folder`/graft.toml; ConfigurationError with every fault, each with its key, value and what is allowed."""
    path = folder / FILE_NAME
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigurationError(
            [f"{path}: no such file; name the project folder with --project or GRAFT_PROJECT"]
        ) from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError([f"{path}: not valid TOML: {error}"]) from None
    try:
        return Project(folder=folder.resolve(), **table)
    except ValidationError as error:
        raise ConfigurationError([_fault(path, fault) for fault in error.errors()]) from None


def _fault(path: Path, fault: Any) -> str:
    key = ".".join(str(part) for part in fault["loc"])
    return f"{path.name}: {key}: {fault['msg']}, got {fault['input']!r}"
