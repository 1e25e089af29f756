"""Features online = offline: what Feast gives of the past is what the examples carry."""

import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner

from features.repo.batch_tables import Collected, collect
from features.repo.store import apply, materialize, open_store, pushed_tables
from graft.cli import cli
from graft.project import load_project
from runtime.child import start_child
from stream.config import Topics
from stream.events import Example
from stream.kafka.topics import ensure_topics
from stream.log.examples import ExampleReader
from stream.replay.replay import replay

_GRAFT = [sys.executable, "-m", "graft"]
_FIXTURES = Path(__file__).parents[2] / "fixtures" / "simulated"
_IMPRESSIONS = 600
_PUSHED = ("listener_activity", "track_activity", "listener_teacher", "track_teacher")
_FAST = """
[stream]
topic_prefix = "PREFIX"
idle_seconds = 0.5
"""


class Stream:
    """A copy of the fixtures with a half-life for items, their events at times of their own, and a stream for them."""

    def __init__(self, folder: Path, kafka: str, redis_url: str, prefix: str) -> None:
        shutil.copytree(_FIXTURES, folder, ignore=shutil.ignore_patterns("events.jsonl"))
        toml = (folder / "graft.toml").read_text()
        aggregates = 'push_source = "track_activity_push"'
        toml = toml.replace(aggregates, f"{aggregates}\nhalf_life_seconds = 30")
        toml = toml.replace('click_share = "mean(click)"', 'click_share = "rate(click, 0.35, 5)"')
        (folder / "graft.toml").write_text(toml + _FAST.replace("PREFIX", prefix))
        self.project = load_project(folder)
        self.topics = Topics(prefix=prefix)
        self.kafka, self.redis_url = kafka, redis_url
        self.spec = apply(self.project.repo, redis_url, self.project.features)
        materialize(self.project.repo, redis_url, self.project.features)
        ensure_topics(kafka, self.project.stream, self.topics)
        self.environment = {
            **os.environ,
            "GRAFT_PROJECT": str(folder),
            "GRAFT_KAFKA": kafka,
            "GRAFT_REDIS_URL": redis_url,
        }
        done = CliRunner().invoke(cli, ["teacher", "backfill", "--profiles"], env=self.environment)
        assert done.exit_code == 0, done.output

    @contextmanager
    def running(self) -> Iterator[None]:
        """The stream process, which is killed at the end."""
        with (self.project.folder / "stream.log").open("ab") as log:
            child = start_child([*_GRAFT, "stream", "run"], env=self.environment, stderr=log)
        try:
            yield
        finally:
            child.kill()
            child.wait()

    def send(self, lines: list[str]) -> None:
        path = self.project.folder / "some.jsonl"
        path.write_text("".join(lines))
        replay(path, self.kafka, self.topics, max_lag=100, progress=lambda *_: None)

    def read(self, count: int) -> list[Example]:
        reader = ExampleReader(self.kafka, self.topics, {})
        examples: list[Example] = []
        deadline = time.monotonic() + 90
        while len(examples) < count and time.monotonic() < deadline:
            examples += [record.example for record in reader.poll(0.2)]
        reader.close()
        assert len(examples) == count, (self.project.folder / "stream.log").read_text()[-3000:]
        return examples

    def collect(self) -> list[Collected]:
        """What `graft features collect` does."""
        return [collect(table) for table in pushed_tables(open_store(self.project.repo, self.redis_url)).values()]

    def historical(self, examples: list[Example]) -> pd.DataFrame:
        """Feast's answer for the impressions' ids and times, by these."""
        entities = pd.DataFrame(
            {
                "user_id": [example.user_id for example in examples],
                "item_id": [example.item_id for example in examples],
                "event_timestamp": pd.to_datetime([e.event_time_ms for e in examples], unit="ms", utc=True),
            }
        )
        names = [feature.name for feature in self.spec.features if feature.view in _PUSHED]
        store = open_store(self.project.repo, self.redis_url)
        answer = store.get_historical_features(entities, names, full_feature_names=True).to_df()
        return answer.set_index(["user_id", "item_id", "event_timestamp"])


def _lines() -> list[str]:
    """The fixtures' events in their order, each impression with a millisecond of its own."""
    lines: list[str] = []
    shown_ms: dict[str, int] = {}
    last_ms = 0
    for text in (_FIXTURES / "events.jsonl").read_text().splitlines():
        event = json.loads(text)
        if event["type"] == "impression":
            last_ms = max(event["event_time_ms"], last_ms + 1)
            shown_ms[event["impression_id"]] = event["event_time_ms"] = last_ms
            if len(shown_ms) > _IMPRESSIONS:
                return lines
        else:
            event["event_time_ms"] = max(event["event_time_ms"], last_ms)
        lines.append(json.dumps(event) + "\n")
    raise AssertionError("the fixtures have fewer impressions")


@pytest.mark.timeout(300)  # two starts of the stream on a busy machine
def test_what_feast_gives_of_the_past_is_what_the_examples_carry_row_by_row(
    tmp_path: Path, kafka: str, redis_url: str, topic_prefix: str
) -> None:
    stream = Stream(tmp_path / "pair", kafka, redis_url, topic_prefix)
    lines = _lines()
    with stream.running():  # killed with examples in the making
        stream.send(lines[: len(lines) // 2])
    with stream.running():
        stream.send(lines[len(lines) // 2 :])
        examples = stream.read(_IMPRESSIONS)
    collected = stream.collect()
    assert stream.collect() == [found._replace(log_rows=0) for found in collected]

    answer = stream.historical(examples)
    assert len(answer) == len(examples)
    pushed = [(at, feature) for at, feature in enumerate(stream.spec.features) if feature.view in _PUSHED]
    different, values = [], set()
    for example in examples:
        row = answer.loc[(example.user_id, example.item_id, pd.Timestamp(example.event_time_ms, unit="ms", tz="UTC"))]
        for at, feature in pushed:
            offline = row[feature.name.replace(":", "__")]
            found = None if pd.isna(offline) else float(offline)
            values.add(example.features[at])
            if found != example.features[at]:
                different.append((example.impression_id, feature.name, example.features[at], found))
    assert different == []
    assert len(values) > 150, "few pushes were read"
