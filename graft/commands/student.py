"""``graft student bootstrap``, ``train``, ``serve`` and ``versions``. The scorer imports neither torch nor Feast."""

from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from graft.commands.bootstrap import bootstrap
from graft.commands.output import echo_result, json_option
from graft.process import begin
from student.evaluate.arms import STUDENT

if TYPE_CHECKING:
    from student.versions.registry import Registry


@click.group
def student() -> None:
    """Learn, publish and serve the student."""


student.add_command(bootstrap)


@student.command
@click.option(
    "--from",
    "log",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="LOG",
    help="Learn what this example log has first, then the stream from where it ends.",
)
@click.pass_obj
def train(project_folder: Path | None, log: Path | None) -> None:
    """Learn from the stream of examples until stopped (SIGTERM or Ctrl-C), and publish versions on the way.

    Goes on from the newest version in GRAFT_VERSIONS. One learner per folder. It computes on a GPU where CUDA sees one.
    Under torchrun it is several processes that learn as one; each reads its share of the partitions, and serves its
    metrics at GRAFT_METRICS_PORT + LOCAL_RANK.

    Example: GRAFT_METRICS_PORT=9102 graft student train --from example-log

    Example: torchrun --nproc-per-node 2 -m graft student train
    """
    process = begin(project_folder)
    project, settings = process.project, process.settings
    stop = process.run_until_stopped()
    from features.spec_file import load_spec
    from graft.commands.teacher import open_cache, open_unshown_cache
    from stream.connection import wait_for_kafka
    from stream.example_log import ExampleLog, log_then_topic
    from stream.examples import ExampleReader
    from stream.topics import ensure_topics, topic_id
    from student.learn.exchange import nearest_device, open_exchange
    from student.learn.train import run_training
    from student.versions.registry import Registry

    spec = load_spec(project.repo)
    open_source = partial(ExampleReader, settings.kafka, project.topics)
    if log is not None:
        open_source = partial(log_then_topic, ExampleLog(log, spec.spec_id), settings.kafka, project.topics)

    def ensured() -> str | None:
        ensure_topics(settings.kafka, project.stream, project.topics)
        return topic_id(settings.kafka, project.topics.examples)

    its_id = wait_for_kafka(ensured, stop)
    with open_exchange() as exchange:
        run_training(
            setup=project.learner_setup(spec),
            publish=project.publish,
            teacher_version=project.teacher.version,
            registry=Registry(settings.versions),
            cache=open_cache(process),
            unshown=open_unshown_cache(process, spec),
            open_source=lambda offsets: wait_for_kafka(partial(open_source, offsets, ranks=exchange), stop),
            topic_id=its_id,
            stop=stop,
            exchange=exchange,
            device=nearest_device(),
        )


@student.command
@click.option("--host", help="Where to listen; overrides GRAFT_HTTP_HOST.")
@click.option("--port", type=click.IntRange(1, 65_535), help="Overrides GRAFT_HTTP_PORT.")
@click.pass_obj
def serve(project_folder: Path | None, host: str | None, port: int | None) -> None:
    """Answer POST /score from the champion version, and swap to each new one.

    Needs no project folder: a version holds all that serving it takes. Metrics are at /metrics of the same port.

    Example: graft student serve --port 8080
    """
    from runtime.telemetry import StopSignal
    from student.serve.server import run_server
    from student.versions.registry import Registry

    process = begin(project_folder)
    settings = process.settings
    stop = StopSignal().install()
    run_server(
        Registry(settings.versions), process.redis_url, host or settings.http_host, port or settings.http_port, stop
    )


@student.command
@json_option
@click.pass_obj
def versions(project_folder: Path | None, *, as_json: bool) -> None:
    """List the published versions, oldest first; the champion serves.

    The row of a version that cannot be read says why and what to do.

    Example: graft student versions
    """
    from student.versions.registry import Registry

    rows = _version_rows(Registry(begin(project_folder).settings.versions))
    lines = [_version_line(row) for row in rows] or ["no versions yet; 'graft student train' publishes them"]
    echo_result(lines, rows, as_json=as_json)


def _version_rows(registry: "Registry") -> list[dict[str, Any]]:
    """One row per version, and one for a champion that is gone."""
    champion, names = registry.champion(), registry.versions()
    gone = [champion] if champion and champion not in names else []
    return [{"version": name, "champion": name == champion, **_described(registry, name)} for name in [*names, *gone]]


def _described(registry: "Registry", version: str) -> dict[str, Any]:
    from student.versions.version_folder import VersionError

    try:
        manifest = registry.load_manifest(version)
    except VersionError as error:
        return {"fault": str(error)}
    return {
        "created_at": datetime.fromtimestamp(manifest.created_at_ms / 1000, UTC).isoformat(timespec="seconds"),
        "examples": manifest.examples,
        "auc": {task: arms[STUDENT].auc for task, arms in manifest.metrics.items() if STUDENT in arms},
    }


def _version_line(row: dict[str, Any]) -> str:
    champion = "  champion" if row["champion"] else ""
    if "fault" in row:
        return f"{row['version']}  cannot be read{champion}: {row['fault']}"
    auc = ", ".join(f"AUC {task} {value:.4f}" for task, value in row["auc"].items() if value is not None)
    return f"{row['version']}  {row['created_at']}  {row['examples']:>9,} examples  {auc}{champion}"
