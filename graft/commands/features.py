"""``graft features apply``, ``materialize`` and ``collect``. Feast is imported only when graft.toml is sound."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from graft.commands.output import echo_result, json_option
from graft.commands.time_option import time_of
from graft.lazy_group import CommandGroup
from graft.process import begin


@click.group(cls=CommandGroup)
def features() -> None:
    """Register features with Feast, and fill the online store."""


@features.command
@json_option
@click.pass_obj
def apply(project_folder: Path | None, *, as_json: bool) -> None:
    """Register the feature repository and save the spec that learner and scorer read.

    Example: graft features apply
    """
    process = begin(project_folder)
    project = process.project
    from features import store

    spec = store.apply(project.repo, process.redis_url, project.features)
    result = {
        "spec_id": spec.spec_id,
        "features": len(spec.features),
        "dense_columns": len(spec.dense_names),
        "categorical_columns": len(spec.categorical),
    }
    columns = f"{len(spec.dense_names)} dense columns, {len(spec.categorical)} categorical"
    echo_result([f"applied {len(spec.features)} features ({columns}) as spec {spec.spec_id}"], result, as_json=as_json)


@features.command
@click.option(
    "--until", callback=time_of, metavar="TIME", help="Only values from before this time (ISO 8601; default: now)."
)
@json_option
@click.pass_obj
def materialize(project_folder: Path | None, until: datetime | None, *, as_json: bool) -> None:
    """Load the batch feature views into Redis; views that the stream pushes are left alone.

    Example: graft features materialize --until 2026-01-31T12:00:00Z
    """
    process = begin(project_folder)
    project = process.project
    from features import store

    rows = store.materialize(project.repo, process.redis_url, project.features, until)
    echo_result([f"{view}: {count:,} rows" for view, count in rows.items()], rows, as_json=as_json)


@features.command
@click.option(
    "--keep",
    type=click.FloatRange(0, 36_500),
    metavar="DAYS",
    help="Of what is older keep each entity's newest row alone.",
)
@json_option
@click.pass_obj
def collect(project_folder: Path | None, keep: float | None, *, as_json: bool) -> None:
    """Bring what was pushed into the batch tables of the pushed views.

    After it Feast's get_historical_features gives running aggregates and profiles as they were read at each time. May
    run beside the stream; what it has brought over is removed from the push log.

    Example: graft features collect --keep 90
    """
    process = begin(project_folder)
    project = process.project
    from features.collect import collect as collect_log
    from features.pushed_tables import pushed_tables
    from features.store import open_store

    keep_from = None if keep is None else datetime.now(UTC) - timedelta(days=keep)
    tables = pushed_tables(open_store(project.repo, process.redis_url))
    fed = [aggregate.push_source for aggregate in project.features.aggregates]
    fed += [profile.push_source for profile in project.features.profiles]
    sources = [push_source for push_source in fed if push_source in tables]
    found = {tables[source].path.name: collect_log(tables[source], keep_from) for source in sources}
    lines = [f"{n}: {c.rows:,} rows of {c.entities:,} entities; {c.log_rows:,} in the log" for n, c in found.items()]
    nothing = ["nothing to collect: no pushed view that was applied has a Parquet file of this machine as its source"]
    echo_result(lines or nothing, {name: c._asdict() for name, c in found.items()}, as_json=as_json)
