"""Where `graft dev` keeps what it makes: the folder `.graft-dev` in the project's."""

import shlex
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from graft.project import Project
from lab.embedded.services import Services
from runtime.errors import ConfigurationError
from runtime.folder import claim_folder, replacing, writing
from runtime.frozen_model import FrozenModel

NAME = ".graft-dev"
_KEPT, _RUN = "kept", "run"
_EMBEDDED = "embedded"
_SECOND = "another 'graft dev' works in it; end that one first, or copy the project's folder"


class Begun(FrozenModel):
    """The servers of the first start that kept its files."""

    kafka: str
    redis: str


class Home(NamedTuple):
    """The folder of the files of one start. `keeps`: it goes on with what an earlier start left there."""

    folder: Path
    keeps: bool

    @property
    def servers(self) -> Path | None:
        """Where embedded servers keep their data; None: they keep none."""
        return self.folder if self.keeps else None

    @property
    def versions(self) -> Path:
        """The registry of students."""
        return self.folder / "versions"

    @property
    def logs(self) -> Path:
        """The logs of the processes."""
        return self.folder / "logs"

    def take_up(self, services: Services, used_topics: list[str], project: Project) -> None:
        """Note the servers at the first start.

        ConfigurationError when an earlier start had other servers, or its topics have records that it did not send.
        """
        path, now = self.folder / "begun.json", _begun(services)
        if path.exists():
            before = _read(path)
            if before != now:
                raise ConfigurationError([_other_servers(self.folder, before, now)])
        elif used_topics:
            raise ConfigurationError([_used(services, used_topics, project)])
        with replacing(path) as file:
            file.write(now.model_dump_json().encode() + b"\n")


@contextmanager
def claimed_home(project: Project, *, keeps: bool) -> Iterator[Home]:
    """The folder, for one `graft dev` at a time: GraftError for a second. Empty unless it keeps what was there."""
    root = project.folder / NAME
    with claim_folder(root, _SECOND):
        home = Home(root / (_KEPT if keeps else _RUN), keeps)
        with writing(root):
            (root / ".gitignore").write_text("*\n", encoding="utf-8")
            if not keeps:
                shutil.rmtree(home.folder, ignore_errors=True)
            home.logs.mkdir(parents=True, exist_ok=True)
        yield home


def _begun(services: Services) -> Begun:
    return Begun(
        kafka=services.embedded_broker if services.embedded_kafka else services.kafka,
        redis=_EMBEDDED if services.embedded_redis else "given",  # its address may have a password
    )


def _read(path: Path) -> Begun:
    try:
        return Begun.model_validate_json(path.read_bytes())
    except ValidationError:
        raise ConfigurationError([f"{path}: cannot be read; remove {path.parent} to begin anew"]) from None


def _other_servers(folder: Path, before: Begun, now: Begun) -> str:
    return (
        f"{folder}: was begun with Kafka {before.kafka} and Redis {before.redis}, now it is Kafka {now.kafka} and "
        f"Redis {now.redis}; name the same ones, or remove the folder to begin anew"
    )


def _used(services: Services, used_topics: list[str], project: Project) -> str:
    folder = shlex.quote(str(project.folder))
    return (
        f"Kafka at {services.kafka}: has records in {', '.join(used_topics)} that 'graft dev' did not send for this "
        f"start; 'graft --project {folder} reset' removes them, another stream.topic_prefix leaves them, "
        "--keep goes on with what an earlier --keep began"
    )
