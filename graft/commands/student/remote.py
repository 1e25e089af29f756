"""``graft student push`` and ``pull``: the registry in an object store."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from graft.commands.options import echo_result, json_option
from graft.process import Process, begin

if TYPE_CHECKING:
    from student.versions.registry import Registry
    from student.versions.remote import RemoteRegistry

_log = logging.getLogger(__name__)

_every = click.option(
    "--every",
    type=click.FloatRange(min=0.2),
    metavar="SECONDS",
    help="Go on until stopped, looking for what is new this often; else once.",
)


@click.command
@click.argument("url")
@_every
@json_option
@click.pass_obj
def push(project_folder: Path | None, url: str, every: float | None, *, as_json: bool) -> None:
    """Upload the versions in GRAFT_VERSIONS, and what their names stand for, to URL (S3, or another that fsspec knows).

    Beside the learner, which it does not disturb. What is pruned here leaves URL too. URL is one learner's.

    Example: graft student push s3://models/shop --every 2
    """
    process, registry, remote = _begun(project_folder, url)
    _copied(process, "push", every, lambda: remote.push(registry), as_json=as_json)


@click.command
@click.argument("url")
@_every
@click.option("--whole", is_flag=True, help="Also what a learner goes on from, into an empty GRAFT_VERSIONS; once.")
@json_option
@click.pass_obj
def pull(project_folder: Path | None, url: str, every: float | None, *, whole: bool, as_json: bool) -> None:
    """Download into GRAFT_VERSIONS what a scorer reads of the versions at URL, and move its names as they move there.

    The folder follows URL: names are moved where the learner is.

    Example: graft student pull s3://models/shop --every 1

    Example: graft student pull s3://models/shop --whole
    """
    if whole and every is not None:
        raise click.UsageError("--whole and --every exclude each other: what is whole is a learner's from then on")
    process, registry, remote = _begun(project_folder, url)
    with registry.claim():
        if remote.index() is None:
            _log.warning("%s: nothing has been pushed there yet", url)
        download = remote.restore if whole else remote.follow
        _copied(process, "pull", every, lambda: download(registry), as_json=as_json)


def _begun(project_folder: Path | None, url: str) -> "tuple[Process, Registry, RemoteRegistry]":
    process = begin(project_folder)
    from student.versions.registry import Registry
    from student.versions.remote import RemoteRegistry

    return process, Registry(process.settings.versions), RemoteRegistry(url)


def _copied(process: Process, verb: str, every: float | None, copy: Callable[[], list[str]], *, as_json: bool) -> None:
    if every is None:
        versions = copy()
        echo_result([f"{verb}: {len(versions)} versions {' '.join(versions)}".rstrip()], versions, as_json=as_json)
        return
    from runtime.health import HEALTH
    from runtime.outage import Outage, StoppedError, wait_for

    stop = process.run_until_stopped()
    outage = Outage("store", "it is tried again until it does")
    HEALTH.begin(verb)
    while not stop.is_set():
        try:
            versions = wait_for(copy, outage, stop)
        except StoppedError:
            return
        HEALTH.round_ended(verb)
        if versions:
            _log.info("%s versions=%s", verb, ",".join(versions))
        stop.wait(every)
