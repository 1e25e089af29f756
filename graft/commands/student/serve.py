"""``graft student serve``: the scorer, which imports neither torch nor Feast."""

import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from graft.process import Process, begin
from graft.settings import Settings

if TYPE_CHECKING:
    from runtime.telemetry import StopSignal
    from student.serve.workers import Address, Group, Listeners


@click.command
@click.option("--host", help="Where to listen; overrides GRAFT_HTTP_HOST.")
@click.option("--port", type=click.IntRange(1, 65_535), help="Overrides GRAFT_HTTP_PORT.")
@click.option("--workers", type=click.IntRange(1, 256), help="Processes; overrides GRAFT_HTTP_WORKERS.")
@click.option("--listener", "inherited", type=(str, int), multiple=True, hidden=True)  # of a worker: its open files
@click.pass_obj
def serve(
    project_folder: Path | None,
    host: str | None,
    port: int | None,
    workers: int | None,
    inherited: tuple[tuple["Group", int], ...],
) -> None:
    """Answer POST /score from the champion version, and swap to each new one.

    Needs no project folder: a version holds all that serving it takes. Metrics are at /metrics of the same port, or of
    GRAFT_METRICS_PORT.

    Example: graft student serve --port 8080
    """
    from runtime.redis import refuse_wrong_login
    from runtime.telemetry import StopSignal
    from student.serve.workers import listen, run_workers

    process = begin(project_folder)
    settings, stop = process.settings, StopSignal().install()
    if inherited:
        _serve(process, {group: socket.socket(fileno=number) for group, number in inherited}, stop)
        return
    refuse_wrong_login(process.redis_url)  # at the start alone: later it answers from defaults, whatever Redis says
    count = workers or settings.http_workers
    with listen(_addresses(settings, host, port)) as listeners:
        if count > 1:
            run_workers([sys.executable, "-m", "graft", *sys.argv[1:]], count, listeners, stop)
        else:
            _serve(process, listeners, stop)


def _addresses(settings: Settings, host: str | None, port: int | None) -> dict["Group", "Address"]:
    from student.serve.workers import Address

    scores = Address(host or settings.http_host, port or settings.http_port, "--host and --port")
    addresses: dict[Group, Address] = {"scores": scores}
    if settings.admin_port is not None:
        addresses["administration"] = Address(settings.admin_host, settings.admin_port, "GRAFT_ADMIN_PORT")
    if settings.metrics_port is not None:
        addresses["metrics"] = Address(settings.metrics_host, settings.metrics_port, "GRAFT_METRICS_PORT")
    return addresses


def _serve(process: Process, listeners: "Listeners", stop: "StopSignal") -> None:
    from features.online.item_table import TableLimits
    from student.serve.admission import Tokens
    from student.serve.server import Limits, run_server
    from student.serve.swap import ChampionSwap
    from student.versions.registry import Registry

    settings = process.settings
    items = TableLimits(settings.items_in_memory, settings.items_max_age_seconds)
    run_server(
        ChampionSwap(Registry(settings.versions), process.redis_url, items),
        listeners,
        stop,
        Limits(connections=settings.http_connections, requests=settings.http_requests),
        None if settings.http_tokens_file is None else Tokens(settings.http_tokens_file),
        settings.http_sample,
    )
