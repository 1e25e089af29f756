"""``graft reset``: removes what a project has left in Kafka, Redis and the version registry."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from graft.commands.options import echo_result, json_option
from graft.process import Process, begin
from runtime.errors import InvalidInputError

if TYPE_CHECKING:
    from features.spec import FeatureSpec

PARTS = ("topics", "state", "aggregates", "cache", "versions")


@dataclass(frozen=True)
class Part:
    """One thing that can be removed.

    `consequence` says what follows, in a sentence. `counts` tells what there is: name -> how many records, rows
    or versions. `refuse_if_used` raises GraftError while a process works with it.
    """

    name: str
    consequence: str
    counts: Callable[[], dict[str, int]]
    remove: Callable[[], object]
    refuse_if_used: Callable[[], None] = lambda: None


@click.command
@click.option("--topics", is_flag=True, help="The project's topics with all records, the join's state among them.")
@click.option("--state", is_flag=True, help="What the join remembers, and how far the stream has read.")
@click.option("--aggregates", is_flag=True, help="The running aggregates in Redis.")
@click.option("--cache", is_flag=True, help="The teacher's logits in Redis.")
@click.option("--generation", metavar="DIGEST", help="One generation of the logits, of 'graft teacher ls'.")
@click.option("--versions", is_flag=True, help="The published versions and their metrics' history.")
@click.option("--all", "everything", is_flag=True, help="All of these.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Say what would be removed; remove nothing.")
@json_option
@click.pass_obj
def reset(
    project_folder: Path | None,
    /,
    *,
    everything: bool,
    generation: str | None,
    yes: bool,
    dry_run: bool,
    as_json: bool,
    **chosen: bool,
) -> None:
    """Remove what the project has left in Kafka, Redis and GRAFT_VERSIONS, to start over.

    Says first what there is and what follows, then asks; where there is no terminal it needs --yes. Refuses while a
    process of the project works with it, but for the cache, which may be removed at any time. The example log, batch
    features and events are not touched.

    Example: graft reset --topics --aggregates --versions --dry-run
    """
    names = set(PARTS) if everything else {name for name, is_chosen in chosen.items() if is_chosen}
    if not names and generation is None:
        what = "--topics, --state, --aggregates, --cache, --generation, --versions or --all"
        raise click.UsageError(f"say what to remove: {what}")
    if not (yes or dry_run or sys.stdin.isatty()):
        raise click.UsageError("without a terminal that confirms, give --yes, or --dry-run to see what there is")
    process = begin(project_folder)
    parts = [] if generation is None or "cache" in names else [_generation(process, generation)]
    parts += parts_of(process, names)
    counts: dict[str, Any] = {part.name: part.counts() for part in parts}
    lines = [_line(part, counts[part.name]) for part in parts]
    if dry_run:
        echo_result([f"would remove {line}" for line in lines], {**counts, "removed": False}, as_json=as_json)
        return
    for line in lines:
        click.echo(f"removes {line}", err=True)
    if not yes:
        click.confirm("Remove all of this?", abort=True, err=True)
    _remove(parts)
    echo_result([f"removed {', '.join(part.name for part in parts)}"], {**counts, "removed": True}, as_json=as_json)


def _remove(parts: list[Part]) -> None:
    """Remove every part, or none where one is in use. A reset that was killed can be repeated."""
    for part in parts:
        part.refuse_if_used()
    for part in reversed(parts):
        part.remove()


def _line(part: Part, counts: dict[str, int]) -> str:
    contents = ", ".join(f"{name}: {count:,}" for name, count in counts.items()) or "nothing is there"
    return f"{part.name} ({contents}): {part.consequence}"


def parts_of(process: Process, names: set[str]) -> Iterator[Part]:
    """The parts of these names (of PARTS), each after what it is made of: remove the last one first."""
    makers = (_topics, _state, _aggregates, _cache, _versions)  # Kafka before Feast, whose import shows every warning
    for name, make in zip(PARTS, makers, strict=True):
        if name in names and not (name == "state" and "topics" in names):  # the topics have the state's among them
            yield make(process)


def _topics(process: Process) -> Part:
    from stream.kafka.topic_removal import whole_removal

    removal = whole_removal(process.settings.kafka, process.project.topics)
    consequence = (
        "events, examples, teacher requests, dead letters and the join's state are gone; the stream begins with what "
        "is sent next, and a learner goes on from no version of before (--versions)"
    )
    return Part("topics", consequence, removal.records, removal.remove, removal.refuse_if_read)


def _state(process: Process) -> Part:
    from stream.kafka.topic_removal import state_removal

    removal = state_removal(process.settings.kafka, process.project.topics)
    consequence = "the stream joins again what its input topics still have, and writes these examples a second time"
    return Part("state", consequence, removal.records, removal.remove, removal.refuse_if_read)


def _aggregates(process: Process) -> Part:
    from features.push.pushed_rows import PushedRows
    from stream.kafka.groups import STREAM_GROUP, group_id
    from stream.kafka.topic_removal import refuse_if_joined

    project = process.project
    spec, views = _pushed(process)
    rows = PushedRows(process.redis_url, spec, views, project.features.aggregates)
    return Part(
        "aggregates",
        "these features have their defaults until examples close; a stream that has its state pushes it when it starts",
        lambda: {f"rows of Feast project {spec.feast_project}": rows.count()},
        rows.remove,
        lambda: refuse_if_joined(process.settings.kafka, [group_id(project.topics, STREAM_GROUP)]),
    )


def _cache(process: Process) -> Part:
    from features.push.pushed_rows import ViewRows
    from teacher_cache.cache.generation_registry import GenerationRegistry
    from teacher_cache.cache.inventory import CachedKeys

    project = process.project
    keys, generations = CachedKeys(process.redis_url, project.name), GenerationRegistry(process.redis_url, project.name)
    counts = {f"keys of project {project.name}": keys.count}
    removals: list[Callable[[], object]] = [keys.remove, generations.clear]
    if project.features.profiles:
        rows = ViewRows(process.redis_url, *_pushed(process), project.features.profiles)
        counts["profiles"] = rows.count
        removals.insert(0, rows.remove)
    return Part(
        "cache",
        "the student learns from labels alone until the teacher has scored again: 'graft teacher backfill' and, for "
        "profiles, 'graft teacher backfill --profiles'",
        lambda: {name: count() for name, count in counts.items()},
        lambda: [remove() for remove in removals],
    )


def _generation(process: Process, digest: str) -> Part:
    """InvalidInputError for the generation that the project makes now, and for one that it never had."""
    from graft.commands.teacher.generations import chosen, generations_of
    from graft.commands.teacher.teacher_parts import ProjectTeacher
    from teacher_cache.cache.generation_registry import GenerationRegistry
    from teacher_cache.cache.inventory import CachedKeys

    row = chosen(generations_of(process, ProjectTeacher(process)), digest)
    if row["is_current"]:
        raise InvalidInputError(f"generation {digest} is what this project makes now and stays; --cache removes all")
    name = process.project.name
    keys, generations = CachedKeys(process.redis_url, name, digest), GenerationRegistry(process.redis_url, name)
    return Part(
        "generation",
        "its logits and what is noted of its profiles are gone, and its name is free",
        lambda: {f"keys of generation {digest}": keys.count()},
        lambda: [remove() for remove in (keys.remove, partial(generations.forget, digest))],
    )


def _pushed(process: Process) -> "tuple[FeatureSpec, dict[str, str]]":
    """The feature spec, and the views that are pushed, by their push source."""
    from features.repo.store import view_sources
    from features.spec import load_spec

    repo = process.project.repo
    return load_spec(repo), view_sources(repo, process.redis_url).pushed


def _versions(process: Process) -> Part:
    from student.versions.registry import Registry

    registry = Registry(process.settings.versions)

    def remove() -> None:
        with registry.claim():
            registry.clear()

    def refuse_if_used() -> None:
        if registry.versions():
            with registry.claim():
                return

    return Part(
        "versions",
        "a learner begins anew; a scorer that runs keeps the version that it has until the next one",
        lambda: {f"versions in {registry.folder}": len(registry.versions())},
        remove,
        refuse_if_used,
    )
