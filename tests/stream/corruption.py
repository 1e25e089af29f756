"""Writes what cannot be decoded: records that claim to be compressed and are not; the checksum is right."""

import struct
from typing import Any

import pytest
from kafka.record.default_records import DefaultRecordBatchBuilder
from kafka.record.util import calc_crc32c

from stream.kafka import connection

_ATTRIBUTES_LOW_BYTE = 22
_GZIP, _CODEC_MASK = 1, 0x07


def send_undecodable(kafka_servers: str, topic: str, count: int, partition: int = 0) -> list[int]:
    """The offsets of a batch that the embedded broker takes; Apache Kafka refuses it."""
    build = DefaultRecordBatchBuilder.build

    def broken(self: Any) -> bytearray:
        batch = bytearray(build(self))
        batch[_ATTRIBUTES_LOW_BYTE] = (batch[_ATTRIBUTES_LOW_BYTE] & ~_CODEC_MASK) | _GZIP
        struct.pack_into(">I", batch, self.CRC_OFFSET, calc_crc32c(memoryview(batch)[self.ATTRIBUTES_OFFSET :]))
        return batch

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DefaultRecordBatchBuilder, "build", broken)
        producer = connection.producer(kafka_servers)
        sent = [producer.send(topic, b"undecodable", b"k", partition=partition) for _ in range(count)]
        producer.flush()
        producer.close()
    return [future.get(timeout=5).offset for future in sent]
