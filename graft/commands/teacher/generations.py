"""``graft teacher ls``: what lies in the teacher cache, by generation."""

import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from graft.commands.options import echo_result, json_option
from graft.process import Process, begin
from runtime.errors import InvalidInputError

if TYPE_CHECKING:
    from graft.commands.teacher.teacher_parts import ProjectTeacher
    from teacher_cache.cache.generation import Generation
    from teacher_cache.cache.generation_registry import Record
    from teacher_cache.cache.inventory import Inventory

_BINS = ("1 min", "10 min", "1 h", "6 h", "1 d", "7 d", "30 d")
_BAR = 40  # characters


@click.command
@click.argument("generation", required=False)
@json_option
@click.pass_obj
def ls(project_folder: Path | None, generation: str | None, *, as_json: bool) -> None:
    """List the generations of this project's logits: name, rows, bytes, hit rate, since when, from where.

    A generation is all logits that mean the same: of one teacher file, domain map, task list and feature spec. With
    GENERATION, or the word `current`, that one with the ages of its rows (of up to 1,000 users, or users in a context)
    and with what put them there. The hit rate is the learner's.

    Example: graft teacher ls current
    """
    process, teacher = open_teacher(project_folder)
    rows = generations_of(process, teacher)
    if generation is None:
        echo_result([_line(row) for row in rows.values()], list(rows.values()), as_json=as_json)
        return
    row = chosen(rows, teacher.generation.digest if generation == "current" else generation)
    with closing(open_inventory(process, teacher)) as inventory:
        ages = inventory.ages(row["generation"], time.time())
    row["ages"] = dict(zip([*(f"below {name}" for name in _BINS), "older"], ages, strict=True))
    put = ", ".join(f"{name[4:]} {n:,}" for name, n in row["counts"].items() if name.startswith("put:"))
    most = max(1, *ages)
    bars = [f"  {name:>12} {n:>10,} {'#' * round(_BAR * n / most)}" for name, n in row["ages"].items()]
    lines = [_line(row), f"rows put by: {put or 'nobody'}", f"age of {sum(ages):,} of these rows:", *bars]
    echo_result(lines, row, as_json=as_json)


def open_teacher(project_folder: Path | None) -> "tuple[Process, ProjectTeacher]":
    """The process of a command, and its project's teacher."""
    from graft.commands.teacher.teacher_parts import ProjectTeacher

    process = begin(project_folder)
    return process, ProjectTeacher(process)


def open_inventory(process: Process, teacher: "ProjectTeacher") -> "Inventory":
    """What lies in the cache of this project."""
    from teacher_cache.cache.inventory import Inventory

    with closing(teacher.open_registry()) as registry:
        generations = [teacher.generation, *(record.generation for record in registry.records().values())]
    with_context = {generation.digest for generation in generations if generation.context}
    return Inventory(process.redis_url, teacher.project.name, with_context)


def generations_of(process: Process, teacher: "ProjectTeacher") -> dict[str, dict[str, Any]]:
    """Every generation that is noted, that has rows, or that the project makes now, by its digest."""
    from teacher_cache.cache.inventory import Contents

    with closing(teacher.open_registry()) as registry:
        records, names = registry.records(), registry.names()
    with closing(open_inventory(process, teacher)) as inventory:
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
                "context": _context(digest, now, record),
            }
            for digest, record in records_of.items()
        }


def _context(digest: str, now: "Generation", record: "Record | None") -> list[str]:
    """The context features that are in a generation's keys; none where it is not known what it is made of."""
    if digest == now.digest:
        return now.context
    return [] if record is None else record.generation.context


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


def chosen(rows: dict[str, dict[str, Any]], digest: str) -> dict[str, Any]:
    """The generation of this digest; InvalidInputError where the project has none such."""
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
