"""What is joined in memory, against what the stream process makes of the same events."""

import shutil
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from features.aggregates import Aggregates
from features.online.reader import OnlineReader
from features.push.pushed_rows import OwnedPusher, PushedRows
from features.push.pusher import FeastPusher, LoggedPusher
from features.repo.push_log import PushLog
from features.repo.store import apply, batch_tables, materialize, view_sources
from features.spec import FeatureSpec, load_spec
from graft.project import Project, load_project
from lab.embedded import EmbeddedRedis
from runtime.telemetry import StopSignal
from stream.config import Topics
from stream.events import Example
from stream.kafka.topics import ensure_topics
from stream.log.examples import ExampleReader
from stream.process.run import run_stream
from stream.replay.replay import replay
from teacher_cache.domain.domain_map import DomainMap
from teacher_cache.kinds.load import load_teacher
from teacher_cache.profiles import ProfileQueue, Profiler, ProfileScorer, ProfileTable
from tests.features.examples import count_example
from tests.lab.study.conftest import Pair, no_progress


@contextmanager
def _streaming(project: Project, spec: FeatureSpec, topics: Topics, kafka: str, redis_url: str) -> Iterator[None]:
    stop = StopSignal()
    pusher = FeastPusher(project.repo, redis_url, project.features.aggregates)
    rows = PushedRows(redis_url, spec, pusher.views, project.features.aggregates)
    log = PushLog(pusher.tables, project.features.aggregates)
    owned = OwnedPusher(pusher, rows, log)
    thread = threading.Thread(
        target=run_stream,
        kwargs={"claim_aggregates": lambda state: owned.claim(state.name, is_new=state.is_new)},
        args=(
            kafka,
            project.stream.model_copy(update={"topic_prefix": topics.prefix, "idle_seconds": 0.5}),
            topics,
            project.tasks,
            spec,
            OnlineReader(spec, redis_url, pusher.views.values()),
            partial(Aggregates, project.features.aggregates),
            owned,
            "a",
            stop,
        ),
    )
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        log.close()


def _read(kafka: str, topics: Topics, count: int) -> list[Example]:
    reader = ExampleReader(kafka, topics, {})
    examples: list[Example] = []
    deadline = time.monotonic() + 60
    while len(examples) < count and time.monotonic() < deadline:
        examples += [record.example for record in reader.poll(0.2)]
    reader.close()
    return examples


class Streamed(NamedTuple):
    """A project whose stream has seen the fixtures' events, its Redis, and its examples."""

    project: Project
    redis_url: str
    examples: list[Example]


@pytest.fixture(scope="module")
def streamed(pair: Pair, tmp_path_factory: pytest.TempPathFactory, kafka: str) -> Iterator[Streamed]:
    folder = tmp_path_factory.mktemp("streamed") / "pair"
    shutil.copytree(pair.project.folder, folder)
    project, topics = load_project(folder), Topics(prefix=f"t{uuid.uuid4().hex[:12]}-")
    with EmbeddedRedis() as redis:  # the session's is emptied for each test
        spec = apply(project.repo, redis.url, project.features)
        materialize(project.repo, redis.url, project.features)
        _score_profiles(project, spec, redis.url)
        ensure_topics(kafka, project.stream, topics)
        with _streaming(project, spec, topics, kafka, redis.url):
            replay(pair.events, kafka, topics, max_lag=500, progress=no_progress)
            examples = _read(kafka, topics, len(pair.log.records))
        yield Streamed(project, redis.url, examples)


def test_the_log_in_memory_is_the_streams_but_for_the_age_of_running_aggregates(pair: Pair, streamed: Streamed) -> None:
    """All but the aggregates is equal; those are the same too, but the stream may read an earlier state of them."""
    ours = pair.log.examples
    assert len(streamed.examples) == len(ours) > 1_000
    states = _states(pair)
    for theirs, mine in zip(streamed.examples, ours, strict=True):
        assert theirs.model_dump(exclude={"features"}) == mine.model_dump(exclude={"features"})
        for feature, stored, value in zip(pair.spec.features, theirs.features, mine.features, strict=True):
            if feature.view not in _entities(pair):
                assert (stored, type(stored)) == (value, type(value)), feature.name
        for view, entity in _entities(pair).items():
            of_entity = states[view, theirs.user_id if entity == "user" else theirs.item_id]
            assert of_entity.index(_row(pair, view, theirs)) <= of_entity.index(_row(pair, view, mine))


def test_a_second_replay_under_a_new_prefix_does_not_read_the_firsts_aggregates(
    pair: Pair, streamed: Streamed, tmp_path: Path, kafka: str, topic_prefix: str
) -> None:
    """With the first one's totals in Redis the item mean knew the end of the history: AUC .918 in place of .572."""
    project, topics = streamed.project, Topics(prefix=topic_prefix)
    ensure_topics(kafka, project.stream, topics)
    events = tmp_path / "some.jsonl"
    events.write_text("".join(pair.events.read_text().splitlines(keepends=True)[:300]))
    with _streaming(project, load_spec(project.repo), topics, kafka, streamed.redis_url):
        replay(events, kafka, topics, max_lag=500, progress=no_progress)
        again = _read(kafka, topics, 10)
    first = streamed.examples[:10]
    assert [e.impression_id for e in again[:10]] == [e.impression_id for e in first]
    for view in _entities(pair):
        assert {_row(pair, view, example) for example in again[:10]} == {_row(pair, view, e) for e in first}
        assert set(_row(pair, view, again[0])) == {None}


def test_without_delay_a_closed_example_moves_what_the_next_impression_reads(pair: Pair) -> None:
    states = _states(pair)
    for view, entity in _entities(pair).items():
        read: dict[object, int] = {}
        for example in pair.log.examples:
            key = example.user_id if entity == "user" else example.item_id
            place = states[view, key].index(_row(pair, view, example))
            assert place >= read.get(key, 0)
            read[key] = place
        assert max(read.values()) > 10


def _score_profiles(project: Project, spec: FeatureSpec, redis_url: str) -> None:
    """What 'graft teacher backfill --profiles' does."""
    configs, version = project.features.profiles, project.teacher.version
    teacher = load_teacher(project.teacher, project.folder)
    domain_map = DomainMap(project.teacher, project.folder, teacher, spec)
    pushed = view_sources(project.repo, redis_url).pushed
    profiler = Profiler(teacher, domain_map, spec, OnlineReader(spec, redis_url), pushed.values())
    tables = [ProfileTable(config, ProfileQueue(redis_url, version, spec, config)) for config in configs]
    with closing(LoggedPusher(project.repo, redis_url, configs)) as pusher:
        scorer = ProfileScorer(tables, profiler, pusher, batch_tables(project.repo, redis_url, spec))
        assert scorer.refresh() > 0
        while scorer.refresh():
            pass


Row = tuple[object, ...]


def _entities(pair: Pair) -> dict[str, str]:
    """View -> whose running aggregates it holds."""
    pushed = pair.day_zero.sources.pushed
    return {pushed[config.push_source]: config.entity for config in pair.project.features.aggregates}


def _row(pair: Pair, view: str, example: Example) -> Row:
    """What an example logged of a view."""
    return tuple(v for f, v in zip(pair.spec.features, example.features, strict=True) if f.view == view)


def _states(pair: Pair) -> dict[tuple[str, object], list[Row]]:
    """Every state that an entity's view is in, one after the other, from none at all on; floats of 32 bits."""
    aggregates = Aggregates(pair.project.features.aggregates)
    states: dict[tuple[str, object], list[Row]] = {}
    for example in pair.log.examples:
        count_example(aggregates, example.user_id, example.item_id, example.labels, example.event_time_ms)
        for config in pair.project.features.aggregates:
            view = pair.day_zero.sources.pushed[config.push_source]
            key = example.user_id if config.entity == "user" else example.item_id
            columns = aggregates.rows(config.push_source, config.entity, [key])
            row = tuple(float(np.float32(columns[f.feature][0])) for f in pair.spec.features if f.view == view)
            states.setdefault((view, key), [(None,) * len(row)]).append(row)
    return states
