"""Endpoints and credentials of one process: environment variables GRAFT_NAME, or files named by GRAFT_NAME_FILE."""

import difflib
import os
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from graft.errors import ConfigurationError

PREFIX = "GRAFT_"
_FILE_SUFFIX = "_file"


class Settings(BaseModel):
    """What differs between machines; all else stands in the project file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    project: Path = Path()
    kafka: str = "localhost:9092"
    """Bootstrap servers: host:port, comma-separated."""
    redis_url: SecretStr = SecretStr("redis://localhost:6379/0")
    versions: Path = Path("versions")
    """The version registry's folder; not relative to the project."""
    instance: str = Field(default="0", pattern=r"^[A-Za-z0-9._-]{1,64}$")
    """Names this process among its kind: the static member id that lets it back in at once after a kill."""
    metrics_host: str = "127.0.0.1"
    metrics_port: int | None = Field(default=None, ge=1, le=65_535)
    """None: this process serves no metrics of its own (the scorer's are on its HTTP port)."""
    log_level: str = Field(default="INFO", pattern=r"^(DEBUG|INFO|WARNING|ERROR|CRITICAL)$")


def load_settings(environment: Mapping[str, str] = os.environ) -> Settings:
    """Settings from the environment; ConfigurationError for an unknown GRAFT_ name or a bad value, all at once."""
    values: dict[str, str] = {}
    faults: list[str] = []
    for variable in sorted(name for name in environment if name.startswith(PREFIX)):
        name = variable.removeprefix(PREFIX).lower()
        if name in Settings.model_fields:
            values[name] = environment[variable]
        elif name.removesuffix(_FILE_SUFFIX) in Settings.model_fields:
            try:
                values[name.removesuffix(_FILE_SUFFIX)] = Path(environment[variable]).read_text("utf-8").strip()
            except OSError as error:
                faults.append(f"{variable}: cannot read the file it names: {error.strerror}")
        else:
            near = difflib.get_close_matches(name, Settings.model_fields, n=1)
            hint = f"; did you mean {PREFIX}{near[0].upper()}?" if near else ""
            faults.append(f"{variable}: no such setting{hint}")
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        faults += [f"{PREFIX}{str(f['loc'][0]).upper()}: {f['msg']}" for f in error.errors()]
    if faults:
        raise ConfigurationError(faults)
    return settings
