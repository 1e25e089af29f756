"""Partitions on the move: nothing is claimed meanwhile, nothing is waited for without end."""

import time

import pytest

from runtime.errors import ServiceUnavailableError
from stream import inputs
from stream.inputs import Inputs
from stream.topics import ensure_topics
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
    assert member.are_moving()
    await_that(lambda: member.poll(50) == [] and not member.are_moving(), 30, lambda: "no partitions came")
    assert member.have_moved()
    assert member.claim() == [0]


def test_partitions_that_do_not_arrive_end_the_membership(member, monkeypatch):
    monkeypatch.setattr(inputs, "_MOVING_SECONDS", 0.0)
    time.sleep(0.001)
    with pytest.raises(ServiceUnavailableError, match="no partitions were assigned"):
        member.are_moving()
