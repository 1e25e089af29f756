"""``graft dev``."""

from pathlib import Path

import click
from rich.console import Console

from lab.dev.signals import INTERRUPTED, TERMINATED, ended_by_signals
from runtime.telemetry import configure_logging

_MAX = "max"


@click.command
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--events",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Replay this file; default: the project's events.parquet or events.jsonl.",
)
@click.option(
    "--speed",
    default=_MAX,
    show_default=True,
    metavar="max|N",
    help="max: as fast as it is learnt; N: N times as fast as the event times say; 1: with the pauses that they had.",
)
@click.option("--keep", is_flag=True, help="Keep what Kafka, Redis and the learner have: the next start continues it.")
@click.option("--exit", "ends", is_flag=True, help="End once all events are learnt, instead of serving on.")
@click.option(
    "--port", type=click.IntRange(1, 65_535), help="The scorer's; default: GRAFT_HTTP_PORT, 8080 or a free one."
)
@click.option("--kafka", metavar="HOST:PORT", help="Your Kafka in place of an embedded one; overrides GRAFT_KAFKA.")
@click.option("--redis-url", metavar="URL", help="Your Redis; overrides GRAFT_REDIS_URL, where a password belongs.")
def dev(  # noqa: PLR0913 - one argument an option
    folder: Path,
    *,
    events: Path | None,
    speed: str,
    keep: bool,
    ends: bool,
    port: int | None,
    kafka: str | None,
    redis_url: str | None,
) -> None:
    """Run every process of the project FOLDER in this terminal, and send it the project's events.

    Starts an embedded Kafka and Redis (unless your own are named), fills the features, and runs stream, teacher,
    learner and scorer. Prints a curl line that asks for scores, then a table of what happens. A process that dies is
    started again. All files, also the logs, are in FOLDER/.graft-dev. Ctrl-C ends everything.

    With --keep the files are in FOLDER/.graft-dev/kept and stay; the next start with --keep goes on where this one was,
    also after a kill. Remove that folder to begin anew.

    Example: graft dev shop
    """
    from graft.process import given_level
    from lab.dev.run import Options, own_environment, run_dev

    configure_logging(given_level() or "WARNING")
    factor = _speed(speed)
    codes = (INTERRUPTED, TERMINATED) if ends else (0, 0)  # without --exit it always ends by a signal
    with ended_by_signals(*codes):
        options = Options(folder, events, factor, keep, ends, port)
        run_dev(options, own_environment(kafka, redis_url), Console(stderr=True), click.echo)


def _speed(text: str) -> float | None:
    if text == _MAX:
        return None
    try:
        factor = float(text)
    except ValueError:
        factor = 0.0
    if not 0 < factor < float("inf"):
        raise click.BadParameter(f"must be max or a number above 0, got {text!r}", param_hint="--speed")
    return factor
