"""``graft teacher ls``, ``stats``, ``get`` and ``rm``: what lies in the teacher cache, by generation."""

import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from graft.commands.output import echo_result, json_option
from graft.process import Process, begin
from runtime.errors import InvalidInputError

if TYPE_CHECKING:
    from graft.commands.teacher_parts import ProjectTeacher
    from teacher_cache.generation_registry import Record

_BINS = ("1 min", "10 min", "1 h", "6 h", "1 d", "7 d", "30 d")
_BAR = 40  # characters


@click.command
@json_option
@click.pass_obj
def ls(project_folder: Path | None, *, as_json: bool) -> None:
    """List the generations of this project's logits: name, rows, bytes, hit rate, since when, from where.

    A generation is all logits that mean the same: of one teacher file, domain map, task list and feature spec.

    Example: graft teacher ls
    """
    process, teacher = _open(project_folder)
    rows = list(_rows(process, teacher).values())
    echo_result([_line(row) for row in rows], rows, as_json=as_json)


@click.command
@click.argument("generation", required=False)
@json_option
@click.pass_obj
def stats(project_folder: Path | None, generation: str | None, *, as_json: bool) -> None:
    """Print what one generation has: by default the one that this project makes now.

    Ages are of up to 1,000 users' rows; the hit rate is the learner's, since this generation began.

    Example: graft teacher stats
    """
    from teacher_cache.inventory import Inventory

    process, teacher = _open(project_folder)
    row = _chosen(_rows(process, teacher), generation or teacher.generation.digest)
    with closing(Inventory(process.redis_url, teacher.project.name)) as inventory:
        ages = inventory.ages(row["generation"], time.time())
    row["ages"] = dict(zip([*(f"below {name}" for name in _BINS), "older"], ages, strict=True))
    put = ", ".join(f"{name[4:]} {n:,}" for name, n in row["counts"].items() if name.startswith("put:"))
    most = max(1, *ages)
    bars = [f"  {name:>12} {n:>10,} {'#' * round(_BAR * n / most)}" for name, n in row["ages"].items()]
    echo_result([_line(row), f"rows put by: {put or 'nobody'}", "age of rows:", *bars], row, as_json=as_json)


@click.command
@click.argument("user_id", metavar="USER")
@click.argument("item_id", metavar="ITEM")
@json_option
@click.pass_obj
def get(project_folder: Path | None, user_id: str, item_id: str, *, as_json: bool) -> None:
    """Print the logits that the cache has of one user and item, in every generation.

    Example: graft teacher get 196 242
    """
    from teacher_cache.inventory import Inventory

    process, teacher = _open(project_folder)
    known = _rows(process, teacher)
    with closing(Inventory(process.redis_url, teacher.project.name)) as inventory:
        found = inventory.logits(user_id, item_id, list(known))
    rows = []
    for digest, logits, age_seconds in found:
        tasks = known[digest]["tasks"]
        names = tasks if len(tasks) == len(logits) else range(len(logits))
        is_current = known[digest]["is_current"]
        rows.append(
            {
                "generation": digest,
                "is_current": is_current,
                "age_seconds": age_seconds,
                "is_used": is_current and age_seconds <= teacher.config.ttl_seconds,
                "logits": {str(name): logit for name, logit in zip(names, logits, strict=True)},
            }
        )
    lines = [
        f"{row['generation']}{' (current)' if row['is_current'] else ''} {_age(row['age_seconds'])} old"
        f"{'' if row['is_used'] else ', not used'}: "
        + ", ".join(f"{name} {logit:.6g}" for name, logit in row["logits"].items())
        for row in rows
    ]
    echo_result(lines or ["no generation has a logit of this user and item"], rows, as_json=as_json)


@click.command
@click.argument("generation")
@click.option("--dry-run", is_flag=True, help="Say what would be removed; remove nothing.")
@json_option
@click.pass_obj
def rm(project_folder: Path | None, generation: str, *, dry_run: bool, as_json: bool) -> None:
    """Remove a generation with its logits, unshown rows and what is noted of profiles; its name is free then.

    The one that this project makes now stays: 'graft reset --cache' removes all.

    Example: graft teacher rm 0123456789abcdef
    """
    from teacher_cache.removal import CachedKeys

    process, teacher = _open(project_folder)
    row = _chosen(_rows(process, teacher), generation)
    digest = row["generation"]
    if row["is_current"]:
        raise InvalidInputError(
            f"generation {digest} is what this project makes now and stays; 'graft reset --cache' removes all of them"
        )
    keys = CachedKeys(process.redis_url, teacher.project.name, digest)
    count = keys.count()
    if not dry_run:
        with closing(teacher.open_registry()) as registry:
            keys.remove()
            registry.forget(digest)
    verb = "would remove" if dry_run else "removed"
    echo_result(
        [f"{verb} generation {digest}: {count:,} keys"],
        {"generation": digest, "keys": count, "removed": not dry_run},
        as_json=as_json,
    )


COMMANDS = (ls, stats, get, rm)


def _open(project_folder: Path | None) -> "tuple[Process, ProjectTeacher]":
    from graft.commands.teacher_parts import ProjectTeacher

    process = begin(project_folder)
    return process, ProjectTeacher(process)


def _rows(process: Process, teacher: "ProjectTeacher") -> dict[str, dict[str, Any]]:
    """Every generation that is noted, that has rows, or that the project makes now, by its digest."""
    from teacher_cache.inventory import Contents, Inventory

    with closing(teacher.open_registry()) as registry:
        records, names = registry.records(), registry.names()
    with closing(Inventory(process.redis_url, teacher.project.name)) as inventory:
        contents = inventory.contents()
        now = teacher.generation
        records_of: dict[str, Record | None] = {**records, **{d: records.get(d) for d in [*contents, now.digest]}}
        return {
            digest: {
                "generation": digest,
                "is_current": digest == now.digest,
                "names": [name for name, of in names.items() if of == digest],
                **contents.get(digest, Contents(0, 0, 0))._asdict(),
                **_counted(inventory.counts(digest)),
                **_noted(record),
            }
            for digest, record in records_of.items()
        }


def _counted(counts: dict[str, int]) -> dict[str, Any]:
    read = counts.get("hits", 0) + counts.get("misses", 0)
    return {"hit_rate": counts.get("hits", 0) / read if read else None, "counts": counts}


def _noted(record: "Record | None") -> dict[str, Any]:
    """What the registry of generations has; nothing of one that it does not know."""
    if record is None:
        return {"begun_at_ms": None, "begun_where": None, "tasks": [], "made_of": None}
    made_of = record.generation.made_of
    tasks = [task["name"] for task in made_of["tasks"]]
    return {"begun_at_ms": record.begun_ms, "begun_where": record.begun_at, "tasks": tasks, "made_of": made_of}


def _chosen(rows: dict[str, dict[str, Any]], digest: str) -> dict[str, Any]:
    if digest not in rows:
        raise InvalidInputError(f"{digest!r} is no generation of this project, which has {', '.join(rows)}")
    return rows[digest]


def _line(row: dict[str, Any]) -> str:
    names = ", ".join(row["names"]) or "no name"
    hit_rate = "nothing learnt with it" if row["hit_rate"] is None else f"hit rate {row['hit_rate']:.1%}"
    since = "not noted"
    if row["begun_at_ms"] is not None:
        since = f"since {datetime.fromtimestamp(row['begun_at_ms'] / 1000, UTC):%Y-%m-%d %H:%M} UTC"
    return (
        f"{row['generation']}{' (current)' if row['is_current'] else ''} {names}: {row['rows']:,} rows of "
        f"{row['users']:,} users, {row['bytes']:,} bytes, {hit_rate}, {since}, from {row['begun_where'] or 'nowhere'}"
    )


def _age(seconds: float) -> str:
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"
