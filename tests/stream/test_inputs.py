"""Partitions on the move: nothing is claimed meanwhile, nothing is waited for without end."""

import time

import pytest

from runtime.errors import ServiceUnavailableError
from stream.kafka.topics import ensure_topics
from stream.process import inputs
from stream.process.inputs import Inputs
from tests.stream.conftest import await_that
from tests.stream.pair import stream_config, topics


@pytest.fixture
def member(kafka, topic_prefix):
    made = topics(topic_prefix)
    ensure_topics(kafka, stream_config(topic_prefix, 1), made)
    joined = Inputs(kafka, made, "a")
    yield joined
    joined.close()


def test_partitions_move_until_they_are_assigned_and_are_then_to_be_claimed(member):
    """A member that joins before it knows its topics is first assigned none of them, by Apache Kafka too."""
    assert member.are_moving()
    claimed = []

    def is_claimed():
        assert member.poll(50) == []
        if member.have_moved() and not member.are_moving():
            claimed.append(member.claim())
            assert not member.have_moved()
        return claimed[-1:] == [[0]]

    await_that(is_claimed, 30, lambda: f"claimed {claimed}")
    assert claimed in ([[0]], [[], [0]])


def test_partitions_that_do_not_arrive_end_the_membership(member, monkeypatch):
    monkeypatch.setattr(inputs, "_MOVING_SECONDS", 0.0)
    time.sleep(0.001)
    with pytest.raises(ServiceUnavailableError, match="no partitions were assigned"):
        member.are_moving()
