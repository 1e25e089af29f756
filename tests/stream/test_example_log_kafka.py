"""The example log and the topic that it is written from, on a real broker."""

import signal
import threading

import pytest
from kafka import TopicPartition
from kafka.structs import ConsumerGroupMetadata

from runtime.child import stop_child
from runtime.errors import DataLossError, GraftError
from runtime.telemetry import StopSignal
from stream.kafka import connection
from stream.kafka.topics import ensure_topics
from stream.kafka.transactions import Outgoing, Transactions
from stream.log.archive import Archive, run_archive
from stream.log.example_log import ExampleLog, log_then_topic
from stream.log.examples import ExampleReader
from tests.forked import start_forked
from tests.stream.conftest import await_that
from tests.stream.pair import stream_config, topics
from tests.stream.test_example_log import example, read

PARTITIONS = 3


class Topic:
    """The examples topic of a pair; every example comes in a transaction, so offsets have gaps."""

    def __init__(self, kafka_servers, prefix):
        self.kafka_servers, self.topics, self.written = kafka_servers, topics(prefix), 0
        ensure_topics(kafka_servers, stream_config(prefix, PARTITIONS), self.topics)
        self._admin = connection.admin(kafka_servers)
        self._writer = Transactions(kafka_servers, self._admin, self.topics, "w")

    def write(self, count, size=10):
        for start in range(self.written, self.written + count, size):
            numbers = range(start, start + size)
            self._writer.commit([self._outgoing(n) for n in numbers], {}, ConsumerGroupMetadata("none"))
        self.written += count

    def _outgoing(self, n):
        value = example(n, context={}).model_dump_json().encode()
        return Outgoing(self.topics.examples, n % PARTITIONS, b"k", value)

    def delete_before(self, offsets):
        self._admin.delete_records({TopicPartition(self.topics.examples, p): o for p, o in offsets.items()})

    def read(self, count, offsets=None, log=None):
        """That many records, from the topic, or from a log and then the topic."""
        if log is None:
            reader = ExampleReader(self.kafka_servers, self.topics, offsets or {})
        else:
            reader = log_then_topic(log, self.kafka_servers, self.topics, offsets or {})
        records, lags = [], [reader.lag()]

        def enough():
            records.extend(reader.poll(0.1))
            lags.append(reader.lag())
            return len(records) >= count

        await_that(enough, 30, lambda: f"{len(records)} of {count}")
        reader.close()
        assert lags == sorted(lags, reverse=True)
        assert lags[0] >= count
        assert lags[-1] <= 1 * PARTITIONS  # the last transaction's markers
        return records

    def archive(self, folder):
        return start_forked(["tests.stream.archive_process", str(folder), self.kafka_servers, self.topics.prefix])

    def close(self):
        self._writer.close()
        self._admin.close()


@pytest.fixture
def topic(kafka, topic_prefix):
    made = Topic(kafka, topic_prefix)
    yield made
    made.close()


def archived(folder, records):
    folder.mkdir()
    archive = Archive(folder, {})
    archive.add(records)
    archive.flush()
    return ExampleLog(folder)


@pytest.mark.parametrize("cuts", [(20, 20, 20), (5, 11, 20), (0, 20, 3), (1, 0, 0), (0, 0, 0)])
def test_log_then_topic_gives_every_record_once_in_the_topic_s_order_wherever_the_log_ends(topic, tmp_path, cuts):
    topic.write(60)
    whole = topic.read(60)
    logged = [r for p, cut in enumerate(cuts) for r in [r for r in whole if r.partition == p][:cut]]
    log = archived(tmp_path / "log", logged)
    topic.delete_before(log.offsets_end())
    assert topic.read(60, log=log) == whole
    for done in (7, 35):
        offsets = {r.partition: r.offset + 1 for r in whole[:done]}
        assert topic.read(60 - done, offsets, log) == whole[done:]


def test_a_topic_that_lost_what_comes_after_the_log_s_end_is_an_error(topic, tmp_path):
    topic.write(30)
    log = archived(tmp_path / "log", topic.read(30)[:12])
    topic.delete_before({p: end + 2 for p, end in log.offsets_end().items()})
    with pytest.raises(DataLossError, match=r"log is learnt up to its end, .* the topic does not go on there"):
        log_then_topic(log, topic.kafka_servers, topic.topics, {})
    with pytest.raises(DataLossError, match=r"log ends at offsets .* archive into an empty folder"):
        run_archive(log.folder, topic.kafka_servers, topic.topics, StopSignal())


def test_an_archive_killed_again_and_again_loses_and_doubles_nothing(topic, tmp_path):
    folder = tmp_path / "log"
    for _ in range(3):
        topic.write(60)
        before = sum(ExampleLog(folder).offsets_end().values()) if folder.exists() else 0
        child = topic.archive(folder)
        await_that(lambda b=before: folder.is_dir() and sum(ExampleLog(folder).offsets_end().values()) > b, 40, str)
        child.kill()
        assert child.wait(10) == -signal.SIGKILL
    topic.write(30)
    child = topic.archive(folder)
    await_that(lambda: len(read(ExampleLog(folder))) >= 210, 40, lambda: str(ExampleLog(folder).offsets_end()))
    assert stop_child(child) == 0
    assert read(ExampleLog(folder)) == topic.read(210)
    assert not list(folder.rglob("*.partial"))


def test_a_stop_writes_what_was_read_and_an_empty_log_begins_where_the_topic_does(topic, tmp_path, monkeypatch):
    topic.write(30)
    whole = topic.read(30)
    topic.delete_before({1: 4})
    wanted = [r for r in whole if r.partition != 1 or r.offset >= 4]
    assert len(wanted) < len(whole)
    archives = []
    monkeypatch.setattr("stream.log.archive.Archive", lambda *a: archives.append(Archive(*a)) or archives[0])
    stop = StopSignal()
    reading = threading.Thread(
        target=run_archive, args=(tmp_path, topic.kafka_servers, topic.topics, stop), kwargs={"every_seconds": 3600.0}
    )
    reading.start()
    await_that(lambda: bool(archives) and len(archives[0]) == len(wanted), 20, lambda: str(archives))
    with pytest.raises(GraftError, match="another process writes this example log"):
        run_archive(tmp_path, topic.kafka_servers, topic.topics, StopSignal())
    assert read(ExampleLog(tmp_path)) == []
    stop.set()
    reading.join(20)
    assert read(ExampleLog(tmp_path)) == wanted
