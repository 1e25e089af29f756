"""One process of graft: its settings and project, and what every long-running one does first."""

import os
import re
import socket
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import click

from graft.project import Project, load_project
from graft.settings import Settings, load_settings
from graft.transports import warn_of_bare_password
from runtime.errors import GraftError
from runtime.health import HealthServer
from runtime.telemetry import StopSignal, configure_logging
from runtime.tracing import TRACING
from stream.kafka.security import use

if TYPE_CHECKING:
    from teacher_cache.teacher import ServerAccess

_NOT_ALLOWED = re.compile(r"[^A-Za-z0-9._-]")  # in the name of an instance


@dataclass(frozen=True)
class Process:
    """What a command works with."""

    settings: Settings

    @cached_property
    def project(self) -> Project:
        """The project that the settings name; ConfigurationError with every fault."""
        return load_project(self.settings.project)

    @property
    def redis_url(self) -> str:
        """Redis' address with its password: not for messages."""
        return self.settings.redis_address

    @property
    def teacher_access(self) -> "ServerAccess":
        """What reaching the teacher's server takes."""
        from teacher_cache.teacher import ServerAccess  # noqa: PLC0415 - numpy, which not every command needs

        return ServerAccess(self.settings.teacher_token_file, self.settings.teacher_ca_file)

    @property
    def instance(self) -> str:
        """The name that tells this process from others of its command. A restart keeps it; each container has its own.

        It is the host's name unless GRAFT_INSTANCE is set. Several processes on one host need a GRAFT_INSTANCE each.
        """
        return self.settings.instance or _NOT_ALLOWED.sub("-", socket.gethostname())[:64] or "0"

    def run_until_stopped(self) -> StopSignal:
        """Take over SIGTERM and SIGINT, and serve this process's health and metrics where GRAFT_METRICS_PORT is set.

        torchrun's processes, which share their environment, take one port each: that and the following ones.
        """
        stop = StopSignal().install()
        host, port = self.settings.metrics_host, self.settings.metrics_port
        if port is not None:
            port += int(os.environ.get("LOCAL_RANK", "0"))
            try:
                HealthServer(port, host)
            except OSError as error:
                raise GraftError(f"GRAFT_METRICS_PORT: cannot listen on {host}:{port}: {error.strerror}") from error
        return stop


def begin(project_folder: Path | None) -> Process:
    """Read the settings, send the log to standard error, and let Kafka's clients log in as the settings say.

    `project_folder` (--project) overrides GRAFT_PROJECT; --verbose and --quiet override GRAFT_LOG_LEVEL.
    """
    process = _command()
    if os.environ.get("GRAFT_LOG_FORMAT") == "json":
        configure_logging("INFO", "json", process)  # what is wrong with the other settings is a line of it too
    settings = load_settings()
    if project_folder is not None:
        settings = settings.model_copy(update={"project": project_folder})
    configure_logging(given_level() or settings.log_level, settings.log_format, process)
    if settings.traces != "off":
        TRACING.start(process)
        click.get_current_context().call_on_close(TRACING.end)
    use(settings.kafka_security)
    warn_of_bare_password(settings.kafka_security, settings.kafka)
    return Process(settings)


def given_level() -> str | None:
    """The log level of --verbose or --quiet; None where neither is given, or no command line runs."""
    context = click.get_current_context(silent=True)
    options = context.find_root().params if context else {}
    return "DEBUG" if options.get("verbose") else "WARNING" if options.get("quiet") else None


def _command() -> str:
    """The command that runs, such as ``stream run``; empty outside of the command line."""
    context = click.get_current_context(silent=True)
    return context.command_path.partition(" ")[2] if context else ""
