"""An offset that is not above the last one is an error, wherever records are taken, with both numbers."""

import pytest

from features.aggregates import Aggregates
from stream.join.partition import Partition
from stream.join.validation import Validator
from stream.kafka.topics import ensure_topics
from stream.log.archive import Archive
from stream.log.examples import ExampleReader
from stream.messages import Message
from stream.positions import OffsetError, Positions
from tests.stream.pair import AGGREGATES, SPEC, TASKS, stream_config, topics
from tests.stream.test_example_log import record


def test_positions_start_at_0_and_move_past_what_is_taken_also_over_gaps():
    positions = Positions(str, {1: 5})
    for key, offset in ((0, 0), (0, 1), (1, 5), (0, 9)):
        positions.take(key, offset)
    assert dict(positions) == {0: 10, 1: 6}


@pytest.mark.parametrize("offset", [0, 5, 6])
def test_an_offset_that_is_not_above_the_last_one_raises_and_moves_nothing(offset):
    positions = Positions(lambda partition: f"topic t, partition {partition}", {3: 7})
    with pytest.raises(OffsetError, match=f"topic t, partition 3: offset {offset} is not above the last one, 6; "):
        positions.take(3, offset)
    assert dict(positions) == {3: 7}


def test_a_message_that_comes_twice_is_not_taken_twice():
    partition = Partition(2, topics("p-"), stream_config("p-"), TASKS, lambda: Aggregates(AGGREGATES))
    partition.start_at({"p-impressions": 40})
    for offset in (40, 43, 43):
        partition.add(Message("p-impressions", 2, offset, None, b""), Validator(SPEC, TASKS), 0.0)
    with pytest.raises(OffsetError, match="topic p-impressions, partition 2: offset 43 is not above the last one, 43"):
        [partition.joined(one) for one in partition.take(partition.inputs, 10)]
    assert dict(partition.positions) == {"p-impressions": 44}


def test_an_example_that_was_archived_is_not_archived_again(tmp_path):
    archive = Archive(tmp_path, {1: 4})
    archive.add([record(1, 4), record(0, 0)])
    archive.flush()
    with pytest.raises(
        OffsetError, match=f"examples for {tmp_path}, partition 1: offset 4 is not above the last one, 4"
    ):
        archive.add([record(0, 1), record(1, 4)])


class Repeated:
    """A history whose second reading has the first's last record again."""

    left = 2

    def __init__(self):
        self._batches = [[record(0, 0), record(0, 1)], [record(0, 1)]]

    def __next__(self):
        return self._batches.pop(0)


def test_an_example_that_comes_twice_is_not_given_to_the_learner_twice(kafka, topic_prefix):
    made = topics(topic_prefix)
    ensure_topics(kafka, stream_config(topic_prefix, 1), made)
    reader = ExampleReader(kafka, made, {}, {0: Repeated()})
    assert [r.offset for r in reader.poll(0.1)] == [0, 1]
    with pytest.raises(OffsetError, match=f"topic {made.examples}, partition 0: offset 1 is not above the last one, 1"):
        reader.poll(0.1)
    reader.close()
