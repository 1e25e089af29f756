"""The topic of used logits, and the archive that follows it, on a real broker."""

import signal
import time
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import pytest
from kafka import TopicPartition

from lab.embedded import EmbeddedKafka
from runtime.child import stop_child
from runtime.errors import DataLossError, ServiceUnavailableError
from stream.events import impression_mark
from stream.kafka import connection
from stream.kafka.errors import UndecodableError
from stream.kafka.topics import ensure_topics
from stream.log.logged_logits import LoggedLogits
from stream.log.logit_file import list_logit_files
from stream.log.used_logits import UsedLogitsReader, UsedLogitsWriter, UsedRow
from tests.stream.conftest import await_that
from tests.stream.pair import stream_config, topics
from tests.stream.test_example_log_kafka import PARTITIONS, Topic


def writer(kafka_servers, its_topics, learner="a"):
    return UsedLogitsWriter(kafka_servers, its_topics, learner=learner, generation="g1", topic_id=None)


def rows(partition, offsets):
    """A miss at every fifth offset."""
    logits = [None if offset % 5 == 0 else [offset + 0.5, -1.0] for offset in offsets]
    return [UsedRow(partition, offset, f"i{offset}", found) for offset, found in zip(offsets, logits, strict=True)]


def read(kafka_servers, its_topics, count, offsets=None):
    """Records with so many examples, by partition."""
    records = []
    with closing(UsedLogitsReader(kafka_servers, its_topics, offsets or {})) as reader:

        def enough():
            records.extend(reader.poll(0.1))
            return sum(len(one.used.offsets) for one in records) >= count

        await_that(enough, 30, lambda: f"{records}")
    return sorted(records, key=lambda one: one[:2])


@pytest.fixture
def its_topics(kafka, topic_prefix):
    made = topics(topic_prefix)
    ensure_topics(kafka, stream_config(topic_prefix, 2), made)
    return made


def test_a_topic_that_the_broker_has_not_heard_of_is_not_read_as_an_empty_one(kafka, topic_prefix):
    with pytest.raises(ServiceUnavailableError, match=f"does not tell of the topic {topic_prefix}"):
        UsedLogitsReader(kafka, topics(topic_prefix), {})


def test_what_is_flushed_is_in_the_topic_in_the_partition_of_its_examples(kafka, its_topics):
    with closing(writer(kafka, its_topics)) as used:
        used.add(rows(0, range(3)) + rows(1, [7]) + rows(0, [3]))
        assert used.flush()
        used.add(rows(1, [8]))
        assert used.flush()
        assert used.flush()  # nothing is left
    first, second, third = read(kafka, its_topics, 6)
    assert [one[:2] for one in (first, second, third)] == [(0, 0), (1, 0), (1, 1)]
    assert first.used.offsets == [0, 1, 2, 3]
    assert first.used.impressions == [impression_mark(f"i{n}") for n in range(4)]
    assert first.used.logits == [None, [1.5, -1.0], [2.5, -1.0], [3.5, -1.0]]
    assert (first.used.learner, first.used.generation, first.used.topic_id) == ("a", "g1", None)
    assert (second.used.offsets, third.used.offsets) == ([7], [8])


def test_many_examples_are_several_records(kafka, its_topics):
    with closing(writer(kafka, its_topics)) as used:
        used.add(rows(0, range(600)))
        assert used.flush()
    assert [len(one.used.offsets) for one in read(kafka, its_topics, 600)] == [256, 256, 88]


def test_without_kafka_a_flush_says_so_and_everything_comes_when_it_is_back(tmp_path, topic_prefix, monkeypatch):
    monkeypatch.setattr("stream.log.used_logits._FLUSH_SECONDS", 0.5)
    its_topics = topics(topic_prefix)
    with EmbeddedKafka(tmp_path / "kafka") as broker:
        ensure_topics(broker.servers, stream_config(topic_prefix, 2), its_topics)
        with closing(writer(broker.servers, its_topics)) as used:
            used.add(rows(0, range(4)))
            assert used.flush()
            time.sleep(1.1)  # a stop keeps what is older than a second
            stop_child(broker.process)
            used.add(rows(0, range(4, 9)))
            began = time.monotonic()
            assert not used.flush()
            assert time.monotonic() - began < 5
            used.add(rows(1, range(3)))
            broker.restart()
            await_that(used.flush, 40, lambda: "not flushed")
        records = read(broker.servers, its_topics, 12)
        seen = {(one.partition, offset) for one in records for offset in one.used.offsets}
        assert seen == {*((0, n) for n in range(9)), *((1, n) for n in range(3))}
        order = [offset for one in records if one.partition == 0 for offset in one.used.offsets]
        assert list(dict.fromkeys(order)) == list(range(9))


def test_what_the_topic_has_lost_is_a_warning_and_what_it_never_had_an_error(kafka, its_topics, caplog):
    with closing(writer(kafka, its_topics)) as used:
        for n in range(4):
            used.add(rows(0, [n]))
            assert used.flush()
    with closing(connection.admin(kafka)) as admin:
        admin.delete_records({TopicPartition(its_topics.used_logits, 0): 2})
    assert [one.offset for one in read(kafka, its_topics, 2, {0: 1})] == [2, 3]
    assert "the logits of offsets 1 to 1 were deleted before they were archived" in caplog.text
    with pytest.raises(DataLossError, match=r"ends at offset 4, but the example log has its logits up to 9"):
        UsedLogitsReader(kafka, its_topics, {0: 9})


def test_what_cannot_be_decoded_ends_the_reader_with_the_command_that_skips_it(kafka, its_topics):
    with closing(connection.producer(kafka)) as producer:
        producer.send(its_topics.used_logits, b"no json", partition=1).get(timeout=10)
    with pytest.raises(UndecodableError, match="graft stream skip used-logits 1 0 0"):
        read(kafka, its_topics, 1)


class Learnt:
    """A topic of examples of which a learner uses logits."""

    def __init__(self, kafka_servers, prefix):
        self.topic = Topic(kafka_servers, prefix)
        self.used = writer(kafka_servers, self.topic.topics)
        self.expected = {}

    def learn(self, records, run):
        """Take note of logits that tell the example and the run."""
        for record in records:
            place = record.partition, record.offset
            self.expected[place] = None if record.offset % 4 == 0 else [float(record.offset), float(run)]
            row = UsedRow(*place, record.example.impression_id, self.expected[place])
            self.used.add([row])
        assert self.used.flush()

    def close(self):
        self.used.close()
        self.topic.close()


@pytest.fixture
def learnt(kafka, topic_prefix):
    made = Learnt(kafka, topic_prefix)
    yield made
    made.close()


def test_an_archive_killed_again_and_again_has_every_example_s_last_logits(learnt, tmp_path):
    folder, records = tmp_path / "log", []
    for run in range(4):
        learnt.topic.write(60)
        records = learnt.topic.read(learnt.topic.written)
        before = list_logit_files(folder) if folder.exists() else []
        child = learnt.topic.archive(folder)
        learnt.learn(records[max(0, 60 * run - 15) :], run)  # as a learner that was killed after its last version
        await_that(
            lambda b=before: folder.is_dir() and len(list_logit_files(folder)) > len(b), 40, lambda b=before: str(b)
        )
        child.kill()
        assert child.wait(10) == -signal.SIGKILL
    learnt.topic.write(30)
    records = learnt.topic.read(learnt.topic.written)
    learnt.learn(records[-30:], 4)
    child = learnt.topic.archive(folder)

    def all_there():
        told = LoggedLogits(folder, "g1").of(records)
        return [one and (one.logits,) for one in told] == [
            (learnt.expected[record.partition, record.offset],) for record in records
        ]

    await_that(all_there, 40, lambda: str(list_logit_files(folder)))
    assert stop_child(child) == 0
    assert all_there()
    assert {file.partition for file in list_logit_files(folder)} == set(range(PARTITIONS))
    assert not list(folder.rglob("*.partial"))


def test_examples_are_archived_without_any_learner(learnt, tmp_path):
    learnt.topic.write(30)
    child = learnt.topic.archive(tmp_path / "log")
    await_that(lambda: len(list((tmp_path / "log").rglob("day=*/*.parquet"))) > 0, 40, str)
    assert stop_child(child) == 0
    assert list_logit_files(tmp_path / "log") == []


def test_a_stopped_archive_goes_on_where_its_logits_end(learnt, tmp_path):
    folder = Path(tmp_path / "log")
    learnt.topic.write(30)
    records = learnt.topic.read(30)
    for run in range(2):
        child = learnt.topic.archive(folder)
        learnt.learn(records[15 * run : 15 * run + 15], run)
        done = 15 * run + 15

        def told(done=done):
            found = LoggedLogits(folder, "g1").of(records) if folder.exists() else []
            return sum(one is not None for one in found) == done

        await_that(told, 40, lambda: str(list_logit_files(folder)))
        assert stop_child(child) == 0
    files = list_logit_files(folder)
    for partition in range(PARTITIONS):
        own = [file for file in files if file.partition == partition]
        assert own[0].first == 0
        assert all(after.first == before.last + 1 for before, after in pairwise(own))
