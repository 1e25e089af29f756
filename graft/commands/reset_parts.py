"""What a project leaves behind and how each part of it is removed, for `graft reset`."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from graft.process import Process

if TYPE_CHECKING:
    from features.view_rows import ViewRows

PARTS = ("topics", "state", "aggregates", "cache", "versions")


@dataclass(frozen=True)
class Part:
    """One thing that can be removed.

    `consequence` says what follows, in a sentence. `found` tells what there is: name -> how many records, rows or
    versions. `refuse_if_used` raises GraftError while a process works with it.
    """

    name: str
    consequence: str
    found: Callable[[], dict[str, int]]
    remove: Callable[[], object]
    refuse_if_used: Callable[[], None] = lambda: None


def parts_of(process: Process, names: set[str]) -> Iterator[Part]:
    """The parts of these names (of PARTS), each after what it is made of: remove the last one first."""
    makers = (_topics, _state, _aggregates, _cache, _versions)  # Kafka before Feast, whose import shows every warning
    for name, make in zip(PARTS, makers, strict=True):
        if name in names and not (name == "state" and "topics" in names):  # the topics have the state's among them
            yield make(process)


def _topics(process: Process) -> Part:
    from stream.kafka.topic_removal import whole_removal

    removal = whole_removal(process.settings.kafka, process.project.topics)
    return Part(
        "topics",
        "events, examples, teacher requests, dead letters and the join's state are gone; the stream begins with what "
        "is sent next, and a learner goes on from no version of before (--versions)",
        removal.records,
        removal.remove,
        removal.refuse_if_read,
    )


def _state(process: Process) -> Part:
    from stream.kafka.topic_removal import state_removal

    removal = state_removal(process.settings.kafka, process.project.topics)
    return Part(
        "state",
        "the stream joins again what its input topics still have, and writes these examples a second time",
        removal.records,
        removal.remove,
        removal.refuse_if_read,
    )


def _aggregates(process: Process) -> Part:
    from features.pushed_rows import PushedRows
    from features.spec_file import load_spec
    from features.store import view_sources
    from stream.kafka.groups import STREAM_GROUP, group_id
    from stream.kafka.topic_removal import refuse_if_joined

    project = process.project
    views = view_sources(project.repo, process.redis_url).pushed
    rows = PushedRows(process.redis_url, load_spec(project.repo), views, project.features.aggregates)
    return Part(
        "aggregates",
        "these features have their defaults until examples close; a stream that has its state pushes it when it starts",
        lambda: {f"rows of Feast project {load_spec(project.repo).feast_project}": rows.count()},
        rows.remove,
        lambda: refuse_if_joined(process.settings.kafka, [group_id(project.topics, STREAM_GROUP)]),
    )


def _cache(process: Process) -> Part:
    from teacher_cache.cache.generation_registry import GenerationRegistry
    from teacher_cache.cache.removal import CachedKeys

    project = process.project
    keys, generations = CachedKeys(process.redis_url, project.name), GenerationRegistry(process.redis_url, project.name)
    found = {f"keys of project {project.name}": keys.count}
    removals: list[Callable[[], object]] = [keys.remove, generations.clear]
    if project.features.profiles:
        rows = _profile_rows(process)
        found["profiles"] = rows.count
        removals.insert(0, rows.remove)
    return Part(
        "cache",
        "the student learns from labels alone until the teacher has scored again: 'graft teacher backfill' and, for "
        "profiles, 'graft teacher profile'",
        lambda: {name: count() for name, count in found.items()},
        lambda: [remove() for remove in removals],
    )


def _profile_rows(process: Process) -> "ViewRows":
    from features.spec_file import load_spec
    from features.store import view_sources
    from features.view_rows import ViewRows

    project = process.project
    views = view_sources(project.repo, process.redis_url).pushed
    return ViewRows(process.redis_url, load_spec(project.repo), views, project.features.profiles)


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
