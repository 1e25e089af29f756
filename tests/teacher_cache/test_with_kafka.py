"""The batch scorer and the backfill on a real broker and a real Redis."""

import json
import signal
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from features.online.reader import OnlineReader
from runtime.child import start_child
from runtime.redis import connect
from runtime.telemetry import StopSignal
from stream.config import StreamConfig, Topics
from stream.kafka import connection
from stream.kafka.groups import TEACHER_GROUP, lag
from stream.kafka.topics import ensure_topics
from stream.log.requests import PastRequests, TeacherRequestReader, offsets_between
from stream.replay.event_file import impressions_of
from teacher_cache.backfill.backfill import backfill, requests_of_impressions
from teacher_cache.batch_scorer import run_batch_scorer
from teacher_cache.cache.cache import LogitCache
from tests.rows import Listed, keys

SCORER_THAT_DIES = Path(__file__).with_name("batch_scorer_process.py")


@pytest.fixture
def topics(kafka, topic_prefix):
    """This test's topics, with two partitions."""
    ensure_topics(kafka, StreamConfig(topic_prefix=topic_prefix, partitions=2), Topics(prefix=topic_prefix))
    return Topics(prefix=topic_prefix)


@pytest.fixture
def send(kafka, topics):
    """Writes teacher requests to the topic."""

    def send_all(requests):
        with closing(connection.producer(kafka)) as producer:
            for request in requests:
                key = request.impression_id.encode()
                producer.send(topics.teacher_requests, request.model_dump_json().encode(), key)
            producer.flush()

    return send_all


@pytest.fixture
def committed_lag(kafka, topics):
    """How many requests the teacher group has not committed."""

    def read():
        with closing(connection.admin(kafka)) as admin:
            return lag(admin, topics, TEACHER_GROUP).records

    return read


@pytest.fixture
def cache(redis_url):
    cache = LogitCache(redis_url, "p:g1", ("finish", "rating"), 100)
    yield cache
    cache.close()


@pytest.fixture
def run_until_cached(kafka, topics, scorer, cache, config):
    """Runs the batch scorer with a real reader until the rows are in the cache; its last batch is committed then."""

    def run(user_ids, item_ids):
        stop = StopSignal()
        watcher = threading.Thread(target=_stop_when_cached, args=(cache, user_ids, item_ids, stop))
        watcher.start()
        with closing(TeacherRequestReader(kafka, topics, "scorer-0")) as reader:
            run_batch_scorer(reader, scorer, cache, config, stop)
        watcher.join()

    return run


@pytest.fixture
def run_scorer_that_dies(kafka, topics, redis_url, teacher, config, spec, tmp_path):
    """Runs a batch scorer process up to its first commit; its exit code."""
    (tmp_path / "config.json").write_text(config.model_dump_json())
    (tmp_path / "spec.json").write_text(spec.model_dump_json())

    def run():
        argv = [sys.executable, str(SCORER_THAT_DIES), str(tmp_path), kafka, topics.prefix, redis_url]
        return start_child(argv).wait(60)

    return run


def _stop_when_cached(cache, user_ids, item_ids, stop):
    deadline = time.monotonic() + 30
    while np.isnan(cache.get(keys(cache, user_ids, item_ids)).logit_BT).any() and time.monotonic() < deadline:
        stop.wait(0.05)
    stop.set()


def test_what_waits_in_kafka_gets_its_logits_and_is_committed(send, run_until_cached, committed_lag, cache, request_of):
    user_ids, item_ids = [n % 3 for n in range(50)], list(range(50))
    send(request_of(n, user_id=n % 3) for n in range(50))
    run_until_cached(user_ids, item_ids)
    assert cache.get(keys(cache, user_ids, item_ids)).logit_BT.tolist() == [[18.0 + n, 4.5] for n in range(50)]
    assert committed_lag() == 0


def test_a_scorer_killed_before_its_commit_has_put_its_logits_and_its_successor_starts_again(
    send, run_scorer_that_dies, committed_lag, run_until_cached, cache, request_of, redis_url
):
    send(request_of(n) for n in range(10))
    assert run_scorer_that_dies() == -signal.SIGKILL
    scored = np.isfinite(cache.get(keys(cache, [1] * 10, list(range(10)))).logit_BT[:, 0]).sum()
    assert 1 <= scored <= 4  # one batch
    assert committed_lag() == 10
    with connect(redis_url) as client:
        client.flushall()  # so that what is there at the end, the successor has scored
    run_until_cached([1] * 10, list(range(10)))
    assert cache.get(keys(cache, [1] * 10, list(range(10)))).logit_BT.tolist() == [[18.0 + n, 4.5] for n in range(10)]
    assert committed_lag() == 0


def test_a_backfill_takes_the_requests_since_a_time_and_moves_no_offset(
    kafka, topics, send, committed_lag, cache, scorer, request_of
):
    send(request_of(n) for n in range(4))
    time.sleep(0.02)  # the boundary between two milliseconds of the broker's clock
    since_ms = time.time_ns() // 1_000_000
    send(request_of(n) for n in range(4, 10))
    with closing(PastRequests(kafka, topics, *offsets_between(kafka, topics, since_ms, None))) as requests:
        asked = Listed([request for _, _, request in requests])
    report = backfill(asked, scorer, cache, progress=lambda _rows, _reached: None)
    assert report.rows == 6
    found = cache.get(keys(cache, [1] * 10, list(range(10)))).logit_BT[:, 0]
    assert np.isfinite(found).tolist() == [False] * 4 + [True] * 6
    assert committed_lag() == 10


def test_a_backfill_of_an_event_file_reads_features_now_and_skips_what_is_no_impression(
    redis_url, cache, scorer, spec, tmp_path
):
    events = tmp_path / "events.jsonl"
    impression = {"type": "impression", "user_id": 1, "event_time_ms": 1, "context": {}}
    feedback = {"type": "feedback", "impression_id": "i1", "task": "like", "value": 1, "event_time_ms": 2}
    lines = [impression | {"impression_id": f"i{n}", "item_id": n} for n in range(3)] + [feedback]
    events.write_text("\n".join(json.dumps(line) for line in lines))
    with closing(OnlineReader(spec, redis_url)) as reader:
        requests = requests_of_impressions(impressions_of(events), reader, spec, 2)
        report = backfill(Listed(requests), scorer, cache, batch_rows=2, progress=lambda _rows, _reached: None)
    assert (report.rows, report.fallback_share) == (3, 1.0)
    assert cache.get(keys(cache, [1], [2])).logit_BT.tolist() == [[7.0, 4.0]]
