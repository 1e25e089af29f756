"""What graft takes from the inside of kafka-python is there, with the signatures for which it was written."""

import inspect
from contextlib import closing
from pathlib import Path

import pytest
from kafka import KafkaConsumer, TopicPartition
from kafka.consumer.fetcher import Fetcher
from kafka.consumer.subscription_state import SubscriptionState
from kafka.coordinator.base import BaseCoordinator
from kafka.net.compat import KafkaNetClient
from kafka.net.manager import KafkaConnectionManager
from kafka.net.transport import KafkaSSLTransport, KafkaTCPTransport
from kafka.producer.sender import Sender
from kafka.producer.transaction_manager import TransactionManager
from kafka.record.default_records import DefaultRecordBatch

from stream.kafka import connection

_SIGNATURES = [
    (KafkaConsumer.poll, "(self, timeout_ms=0, max_records=None, update_offsets=True)"),
    (KafkaConsumer.position, "(self, partition, timeout_ms=None)"),
    (KafkaConsumer.beginning_offsets, "(self, partitions, timeout_ms=None)"),
    (KafkaConsumer.end_offsets, "(self, partitions, timeout_ms=None)"),
    (KafkaConsumer._poll_once, "(self, timer, max_records, update_offsets=True)"),
    (KafkaNetClient.__init__, "(self, net=None, manager=None, **configs)"),
    (BaseCoordinator.request_rejoin, "(self)"),
    (TransactionManager.begin_commit, "(self)"),
    (TransactionManager.send_offsets_to_transaction, "(self, offsets, group_metadata)"),
    (Sender.wakeup, "(self)"),
    (inspect.unwrap(DefaultRecordBatch._read_msg), "(self, decode_varint)"),
    (inspect.unwrap(Fetcher._parse_fetched_data), "(self, completed_fetch)"),
    (
        inspect.unwrap(Fetcher.PartitionRecords._unpack_records),
        "(self, tp, records, key_deserializer, value_deserializer)",
    ),
    (
        inspect.unwrap(KafkaConnectionManager._connect),
        "(self, node, conn, reset_backoff_on_connect=True, timeout_at=None)",
    ),
    (inspect.unwrap(KafkaTCPTransport._sock_recv), "(self)"),
    (inspect.unwrap(KafkaSSLTransport._sock_recv), "(self)"),
]


@pytest.mark.parametrize(("function", "signature"), _SIGNATURES, ids=lambda value: getattr(value, "__qualname__", ""))
def test_what_a_patch_calls_or_replaces_has_the_signature_that_it_knows(function, signature):
    parameters = inspect.signature(function).parameters.values()
    shown = [p.replace(default=p.empty) if callable(p.default) else p for p in parameters]
    assert str(inspect.Signature(shown)) == signature


def test_clients_have_the_parts_that_patches_look_into(kafka, topic_prefix):
    with closing(connection.group_member(kafka, f"{topic_prefix}g", "a")) as member:
        assert isinstance(member._manager, KafkaConnectionManager)
        assert isinstance(member._coordinator, BaseCoordinator)
        assert isinstance(member._subscription, SubscriptionState)
        assert (member._coordinator.rejoining, member.sends_heartbeats) == (False, False)
        at = TopicPartition("t", 0)
        member.assign([at])
        member.seek(at, 7)
        assert member._subscription.assignment[at].position.offset == 7
    with closing(connection.producer(kafka, f"{topic_prefix}p")) as producer:
        assert isinstance(producer._transaction_manager, TransactionManager)
        assert isinstance(producer._sender, Sender)


def test_no_other_module_of_stream_reaches_into_kafka_python():
    room = Path(connection.__file__).parent.parent
    private = ("._coordinator", "._fetcher", "._manager", "._sender", "._subscription", "._transaction_manager")
    inside = ("kafka.net", "kafka.record", "kafka.consumer.", "kafka.producer.", "kafka.coordinator.base")
    for path in room.rglob("*.py"):
        text = path.read_text()
        if path.name != "patches.py":
            assert not [name for name in private if name in text], path
            assert not [name for name in inside if f"from {name}" in text and "RecordMetadata" not in text], path
