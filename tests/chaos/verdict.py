"""What a run has lost, doubled or got wrong, read from the topics, the versions, the example log and Redis."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from features.online.reader import OnlineReader
from features.spec import load_spec
from lab.dev.client import Answer
from stream.log.example_log import ExampleLog
from student.versions.registry import Registry
from teacher_cache.cache.cache import LogitCache
from teacher_cache.cache.generation import generation_of
from teacher_cache.domain.context_key import ContextKey
from tests.chaos.events import ITEMS, USERS
from tests.chaos.follower import Follower
from tests.chaos.learner import LearntBatch, batches_of, undisturbed
from tests.chaos.world import World
from tests.outcomes import Kind, Outcomes, Rules

_SHOWN = 5  # faults of a kind that are told one by one


Value = tuple[str, bytes | None]
"""A message's topic and value."""


class Line(NamedTuple):
    """One line of the table; `faults` make the run fail."""

    name: str
    value: str
    faults: Sequence[str] = ()


def outcomes_of(world: World, follower: Follower) -> Outcomes:
    """What became of each message so far."""
    topics = world.project.topics
    return Outcomes(
        Rules(world.project.stream, world.project.tasks),
        (topics.impressions, topics.feedback),
        follower.messages(),
        list(follower.letters),
        ((example.impression_id, example.labels) for example in list(follower.examples)),
        (request.impression_id for request in list(follower.requests)),
    )


def message_lines(
    follower: Follower,
    sent: Counter[Value],
    invalid: int,
    outcomes: Outcomes,
    again: Iterable[Value] = (),
) -> list[Line]:
    """What became of the messages: `sent` once each, of which `invalid` can be no event, and some of them `again`."""
    found: dict[Kind, list[str]] = defaultdict(list)
    for fault in outcomes.faults():
        found[fault.kind].append(fault.text)
    stands = Counter((place[0], message.value) for place, message in follower.inputs.items())
    twice = Counter(again)
    missing = [f"{value!r} is {count} times too few in {topic}" for (topic, value), count in (sent - stands).items()]
    extra = [
        f"{value!r} is {count} times too many in {topic}" for (topic, value), count in (stands - sent - twice).items()
    ]
    counts = outcomes.counts()
    letters = ", ".join(f"{name.removeprefix('dead letters: ')} {n:,}" for name, n in counts.items() if ":" in name)
    return [
        Line("messages", f"{sent.total():,} sent, {twice.total():,} of them again", [*missing, *extra]),
        Line("in the topics", f"{counts['messages']:,} messages"),
        Line("impressions", f"{len(outcomes.impressions):,} distinct"),
        Line("examples", f"{counts['examples']:,}"),
        Line("lost", f"{len(found['lost'])}", found["lost"]),
        Line("doubled", f"{len(found['doubled'])}", [*found["doubled"], *found["unknown"]]),
        Line("wrong labels", f"{len(found['labels'])} of {counts['labels']:,} feedbacks", found["labels"]),
        Line("duplicates dropped", f"{counts['duplicates']:,}"),
        Line("dead letters", f"{letters}; planted: invalid {invalid:,}", found["dead letter"]),
        Line("late on arrival", f"{outcomes.late_within_window():,} feedbacks of a closed impression"),
    ]


def archive_line(world: World, follower: Follower) -> Line:
    """The example log has exactly the examples of the topic, with their offsets."""
    logged: dict[tuple[int, int], tuple[str, Mapping[str, float | None]]] = {}
    for records in ExampleLog(world.example_log).read({}):
        for record in records:
            logged[record.partition, record.offset] = record.example.impression_id, record.example.labels
    wanted = {(one.partition, one.offset): (one.impression_id, one.labels) for one in follower.examples}
    faults = [f"at {at}: {logged.get(at)}, not {wanted.get(at)}" for at in _different(logged, wanted)]
    return Line("archived", f"{len(logged):,} examples", faults)


def learner_lines(world: World, follower: Follower) -> list[Line]:
    """The newest version has learnt each example once, and is what an undisturbed learner makes of the same batches."""
    registry = Registry(world.versions)
    version = registry.latest()
    if version is None:
        return [Line("learnt", "no version", ["the learner has published no version"])]
    manifest, tensors, state = registry.load_learner(version)
    batches = [batch for batch in batches_of(world.journal) if batch.before < manifest.examples]
    faults = list(_learnt_wrong(follower, batches, manifest.offsets))
    examples = {one.impression_id: one.raw for one in follower.examples}
    if unknown := {one for batch in batches for one in batch.impression_ids} - examples.keys():
        return [Line("learnt", f"{version} of what is no example", sorted(unknown))]
    learner = undisturbed(world.project.learner_setup(load_spec(world.project.repo)), batches, examples)
    again = learner.tensors()
    differ = [name for name, tensor in tensors.items() if tensor.tobytes() != again[name].tobytes()]
    if learner.state() != state:
        differ.append("the learner's state")
    hits = sum(int(np.isfinite(batch.logit_BT).all(axis=1).sum()) for batch in batches)
    equal = "bit-equal to" if not differ else "not those of"
    return [
        Line("learnt", f"{manifest.examples:,} examples once each, {hits:,} with teacher logits", faults),
        Line("weights", f"{version}: {equal} an undisturbed learner's of the same batches and logits", differ),
    ]


def teacher_line(world: World, follower: Follower) -> Line:
    """Every teacher request has its logits in Redis."""
    config = world.project.teacher
    spec = load_spec(world.project.repo)
    generation = generation_of(world.project.name, config, world.project.folder, spec)
    tasks, context = [task.name for task in config.tasks], ContextKey.seen_by(config, spec)
    with closing(LogitCache(world.redis.url, generation.key, tasks, config.ttl_seconds, context)) as cache:
        asked = sorted(set(cache.keys_of(follower.requests)))
        found = cache.get(asked)
    missing = [f"{asked[row]} has no logits" for row in np.flatnonzero(np.isnan(found.logit_BT).any(axis=1))]
    return Line("teacher logits", f"{len(asked) - len(missing):,} of {len(asked):,} rows", missing)


def aggregates_line(world: World, follower: Follower, outcomes: Outcomes) -> Line:
    """The aggregates in Redis are those of all impressions that were joined."""
    expected = _expected_aggregates(follower, outcomes)
    reader = OnlineReader(load_spec(world.project.repo), world.redis.url)
    rows = max(len(USERS), len(ITEMS))
    users, items = (USERS * 2)[:rows], (ITEMS * 2)[:rows]
    columns = reader.read(users, items, [{}] * rows)
    reader.close()
    wrong = []
    for view, ids in (("listener_activity", USERS), ("track_activity", ITEMS)):
        for row, entity in enumerate(ids):
            found = [columns[f"{view}:{name}"][row] for name in ("shown", "click_share", "mean_dwell")]
            if entity in expected and not _is_close(found, expected[entity]):
                wrong.append(f"{view} of {entity}: {found}, not {expected[entity]}")
    value = f"{len(wrong)} wrong of {len(expected):,} entities"
    return Line("aggregates in Redis", value, wrong)


def scores_line(answers: Sequence[Answer], down: Sequence[tuple[float, float]]) -> Line:
    """Requests that failed although the scorer was neither killed nor frozen; times are those of the answers."""
    failed = [answer for answer in answers if answer.fault or answer.retries]
    faults = [
        f"at {answer.at_seconds:.1f} s, after {answer.retries} retries: {answer.fault or 'answered in the end'}"
        for answer in failed
        if not any(
            begin <= answer.at_seconds + answer.latency_ms / 1000 and answer.at_seconds <= end for begin, end in down
        )
    ]
    degraded = sum(answer.degraded for answer in answers)
    value = f"{len(answers):,} requests, {len(failed)} met a scorer that was down, {degraded:,} degraded"
    return Line("scores", value, faults)


def report(lines: Iterable[Line]) -> Iterator[str]:
    """The table, and the first faults of each line below it."""
    lines = list(lines)
    for line in lines:
        verdict = f"  <-- {len(line.faults)} FAULTS" if line.faults else ""
        yield f"  {line.name:<22} {line.value}{verdict}"
    for line in lines:
        yield from (f"  {line.name}: {fault}" for fault in line.faults[:_SHOWN])


def _learnt_wrong(follower: Follower, batches: Sequence[LearntBatch], offsets: Mapping[str, int]) -> Iterator[str]:
    learnt = Counter(impression_id for batch in batches for impression_id in batch.impression_ids)
    yield from (f"{one} was learnt {count} times" for one, count in learnt.items() if count > 1)
    for example in follower.examples:
        at = example.partition, example.offset
        is_due = example.offset < offsets.get(str(example.partition), 0)
        if is_due != (example.impression_id in learnt):
            yield f"{example.impression_id} was {'not ' if is_due else ''}learnt, at {at}"


def _expected_aggregates(follower: Follower, outcomes: Outcomes) -> dict[Any, list[float]]:
    """Of each user and item: impressions, mean click, mean dwell."""
    labels: dict[Any, list[dict[str, float | None]]] = defaultdict(list)
    entities = {request.impression_id: (request.user_id, request.item_id) for request in follower.requests}
    for impression_id in chain.from_iterable(outcomes.joined()):
        for entity in entities[impression_id]:
            labels[entity].append(outcomes.labels(impression_id))
    return {
        entity: [float(len(found)), *(_mean([one[task] for one in found]) for task in ("click", "dwell"))]
        for entity, found in labels.items()
    }


def _mean(labels: Sequence[float | None]) -> float:
    present = [label for label in labels if label is not None]
    return sum(present) / max(1, len(present))


def _is_close(found: Sequence[Any], expected: Sequence[float]) -> bool:
    """Feast keeps them as float32."""
    return None not in found and bool(np.allclose(found, expected, rtol=1e-5))


def _different(left: Mapping[Any, Any], right: Mapping[Any, Any]) -> list[Any]:
    return sorted(at for at in left.keys() | right.keys() if left.get(at) != right.get(at))
