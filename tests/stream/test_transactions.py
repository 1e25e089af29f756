"""A transaction of the stream ends, whatever the broker does."""

import os
import signal
from contextlib import closing

import pytest
from kafka import TopicPartition
from kafka.consumer.group import ConsumerGroupMetadata
from kafka.errors import KafkaTimeoutError

from lab.embedded import EmbeddedKafka
from stream.kafka import connection, patches
from stream.kafka.groups import STREAM_GROUP, group_id
from stream.kafka.topics import ensure_topics
from stream.kafka.transactions import Outgoing, Transactions
from tests.stream.pair import stream_config, topics


@pytest.mark.parametrize("call", ["send_offsets_to_transaction", "commit_transaction"])
def test_a_transaction_that_a_broker_does_not_answer_ends_with_an_error(topic_prefix, monkeypatch, call):
    """kafka-python asks again without an end: a stream would stand still for ever, and say nothing."""
    made = topics(topic_prefix)
    identity = ConsumerGroupMetadata(group_id(made, STREAM_GROUP), -1, "", None)
    with EmbeddedKafka() as broker:
        ensure_topics(broker.servers, stream_config(topic_prefix), made)
        with closing(connection.admin(broker.servers)) as admin:
            transactions = Transactions(broker.servers, admin, made, "a")
        positions = {TopicPartition(made.impressions, 0): 1}
        record = Outgoing(made.examples, 0, b"i1", b"{}")
        assert transactions.commit([record], positions, identity) == [0]

        monkeypatch.setattr(patches, "_LONGEST_ANSWER_MS", 4_000)
        whole = getattr(transactions._producer, call)

        def stopped(*arguments):
            broker.process.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, broker.process.pid, os.WSTOPPED | os.WNOWAIT)  # a busy machine stops its threads late
            whole(*arguments)

        monkeypatch.setattr(transactions._producer, call, stopped)
        try:
            with pytest.raises(KafkaTimeoutError, match=r"gave no answer to a transaction within 4 s"):
                transactions.commit([record], positions, identity)
            transactions.close()
        finally:
            broker.process.send_signal(signal.SIGCONT)
