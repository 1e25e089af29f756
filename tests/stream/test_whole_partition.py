"""A partition is read whole, and what stays open is not waited for for ever."""

from contextlib import closing

import pytest
from kafka import TopicPartition

from runtime.errors import ServiceUnavailableError
from stream.kafka import connection, topics
from stream.kafka.dead_letter_topics import Selection, dead_letters


def test_a_transaction_that_stays_open_ends_the_reading_with_its_place(harness, monkeypatch):
    at = TopicPartition(harness.topics.dead_letters(harness.topics.impressions), 0)
    hanging = connection.producer(harness.kafka_servers, f"{harness.prefix}open")
    with closing(hanging):
        hanging.init_transactions()
        hanging.begin_transaction()
        hanging.send(at.topic, b"undecided", partition=0)
        hanging.flush()
        monkeypatch.setattr(topics, "_SECONDS_WITHOUT_PROGRESS", 1)
        stands_still = pytest.raises(ServiceUnavailableError, match=f"{at.topic}-0: no progress at offset 0 of 1")
        with stands_still, dead_letters(harness.kafka_servers, harness.topics) as reader:
            list(reader.selected(Selection()))
        hanging.abort_transaction()


def test_aborted_records_are_no_standstill(harness, monkeypatch):
    at = TopicPartition(harness.topics.examples, 0)
    with closing(connection.producer(harness.kafka_servers, f"{harness.prefix}aborting")) as producer:
        producer.init_transactions()
        for value in (b"aborted", b"committed"):
            producer.begin_transaction()
            producer.send(at.topic, value, partition=0)
            producer.flush()
            (producer.commit_transaction if value == b"committed" else producer.abort_transaction)()
    monkeypatch.setattr(topics, "_SECONDS_WITHOUT_PROGRESS", 2)
    with (
        closing(connection.consumer(harness.kafka_servers)) as reader,
        closing(connection.admin(harness.kafka_servers)) as admin,
    ):
        whole = topics.whole_partition(reader, admin, at)
        assert (whole.begin, [record.value for record in whole.records]) == (0, [b"committed"])
