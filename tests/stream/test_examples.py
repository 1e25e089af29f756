"""The learner's reader: exactly from its offsets, in one order."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
from kafka import TopicPartition
from kafka.structs import ConsumerGroupMetadata

from runtime.errors import DataLossError, GraftError
from stream.events import Example
from stream.kafka import connection
from stream.kafka.groups import LEARNER_GROUP, group_id, lag
from stream.kafka.topics import ensure_topics
from stream.kafka.transactions import Outgoing, Transactions
from stream.log.archive import Archive
from stream.log.example_log import ExampleLog, log_then_topic
from stream.log.examples import ExampleReader
from tests.stream.conftest import await_that, told
from tests.stream.pair import stream_config, topics


def example(number):
    return Example(
        impression_id=f"i{number}",
        user_id=1,
        item_id="a",
        event_time_ms=number * 10,
        context={},
        spec_id="s",
        features=[1.5, None, "a", [0.25, 1.0]],
        labels={"like": 1.0, "rating": None},
    )


def outgoing(made, number):
    return Outgoing(made.examples, number % 3, b"k", example(number).model_dump_json().encode())


def begin(writer, records):
    """A transaction that is never ended."""
    writer._producer.begin_transaction()
    for r in records:
        writer._producer.send(r.topic, r.value, r.key, r.headers, r.partition)
    writer._producer.flush()


@pytest.fixture
def three(kafka, topic_prefix):
    """Sixty examples in three partitions, in transactions of ten; the third one's writer was killed in it."""
    made = topics(topic_prefix)
    ensure_topics(kafka, stream_config(topic_prefix, 3), made)
    admin = connection.admin(kafka)
    for numbers in (range(30), range(30, 60)):
        writer = Transactions(kafka, admin, made, "w")
        for start in numbers[::10]:
            records = [outgoing(made, number) for number in range(start, start + 10)]
            writer.commit(records, {}, ConsumerGroupMetadata("none")) if start != 20 else begin(writer, records)
        writer.close()
    admin.close()
    return kafka, made


def read(reader, count):
    records = []
    await_that(lambda: records.extend(reader.poll(0.1)) or len(records) >= count, 30, lambda: str(len(records)))
    return records


NUMBERS = [*range(20), *range(30, 60)]


def test_partitions_are_merged_by_event_time_and_aborted_transactions_are_not_seen(three):
    reader = ExampleReader(*three, {})
    records = read(reader, 50)
    assert [r.example for r in records] == [example(n) for n in NUMBERS]
    assert reader.lag() == 0
    reader.close()


def test_a_reader_that_starts_from_recorded_offsets_goes_on_exactly_there(three):
    first = ExampleReader(*three, {})
    records = read(first, 50)
    first.close()
    for cut in (0, 1, 17, 49):
        offsets = {record.partition: record.offset + 1 for record in records[:cut]}
        second = ExampleReader(*three, offsets)
        assert read(second, 50 - cut) == records[cut:]
        second.close()


def test_the_learner_s_progress_is_visible_as_a_lag(three):
    kafka_servers, made = three
    reader, admin = ExampleReader(kafka_servers, made, {}), connection.admin(kafka_servers)
    assert not lag(admin, made, LEARNER_GROUP).has_begun
    offsets = {r.partition: r.offset + 1 for r in read(reader, 50)}
    reader.commit(offsets)
    behind = lag(admin, made, LEARNER_GROUP)
    assert behind.has_begun
    assert behind.records <= 3  # the last transaction's markers
    reader.close()
    admin.close()


def delete_before(three, partition, offset):
    admin = connection.admin(three[0])
    admin.delete_records({TopicPartition(three[1].examples, partition): offset})
    admin.close()


@pytest.mark.parametrize("offsets", [{0: 2}, {1: 10_000}])
def test_examples_after_a_readers_own_position_that_are_gone_are_an_error_and_never_skipped(three, offsets):
    delete_before(three, 0, 5)
    with pytest.raises(DataLossError, match=rf"{three[1].examples}-[01] offset \d+; the broker has \d+ to \d+ there"):
        ExampleReader(*three, offsets)


def test_a_reader_without_a_position_begins_with_the_oldest_example_and_says_what_it_missed(three, caplog):
    alone = ExampleReader(*three, {})
    whole = read(alone, 50)
    alone.close()
    assert told(caplog) == []
    delete_before(three, 0, 5)
    reader = ExampleReader(*three, {1: 0})
    assert reader.started == {0: 5, 1: 0, 2: 0}
    (line,) = told(caplog)
    assert line.startswith(f"topic {three[1].examples}, partition 0 begins with offset 5 now: the examples before it")
    wanted = [r for r in whole if r.partition or r.offset >= 5]
    assert read(reader, len(wanted)) == wanted
    reader.close()


def test_a_topic_that_is_made_anew_while_it_is_read_is_an_error_and_its_examples_are_not_skipped(three):
    kafka, made = three
    with closing(ExampleReader(kafka, made, {})) as reader, closing(connection.admin(kafka)) as admin:
        read(reader, len(NUMBERS))
        assert reader.lag() == 0
        admin.delete_topics([made.examples])
        await_that(lambda: made.examples not in admin.list_topics(), 30, str)
        assert reader.lag() == 0  # the last known one
        ensure_topics(kafka, stream_config(made.examples.removesuffix("examples"), 3), made)
        with pytest.raises(
            DataLossError, match=r"not on the broker: .*examples-\d offset \d+; the topic ends at 0: it"
        ):
            reader.lag()


def test_the_advice_to_a_learner_whose_position_is_gone_works_when_it_is_followed(three, tmp_path):
    alone = ExampleReader(*three, {})
    whole = read(alone, 50)
    alone.close()
    folder = tmp_path / "LOG"
    folder.mkdir()
    archive = Archive(folder, {})
    archive.add(whole[:30])
    archive.flush()
    delete_before(three, 0, 5)
    learnt = {r.partition: r.offset + 1 for r in whole[:4]}
    with pytest.raises(DataLossError, match=r"'graft student train --from LOG' goes on; else .* new folder"):
        ExampleReader(*three, learnt)
    with_log, in_new_folder = log_then_topic(ExampleLog(folder), *three, learnt), ExampleReader(*three, {})
    assert read(with_log, 46) == whole[4:]
    left = [r for r in whole if r.partition or r.offset >= 5]
    assert read(in_new_folder, len(left)) == left
    with_log.close()
    in_new_folder.close()


def test_a_partition_that_does_not_exist_is_an_error(three):
    with pytest.raises(GraftError, match=r"partitions \[0, 1, 2\]"):
        ExampleReader(*three, {7: 0})


def test_a_learner_that_has_learnt_nothing_yet_shows_where_it_starts(three):
    kafka, made = three
    reader = ExampleReader(kafka, made, {1: 5})
    reader.commit({})
    reader.commit({2: 4})
    admin = connection.admin(kafka)
    group = group_id(made, LEARNER_GROUP)
    committed = admin.list_group_offsets(group)[group]
    assert {at.partition: found.offset for at, found in committed.items()} == {0: 0, 1: 5, 2: 4}
    assert lag(admin, made, LEARNER_GROUP).has_begun
    admin.close()
    reader.close()


class Thread:
    """A rank that is a thread of this process; those of one `meeting` share its list and its barrier."""

    def __init__(self, rank, meeting):
        self.rank, self._barrier, self._messages = rank, *meeting
        self.ranks = len(self._messages)

    def gather(self, messages):
        self._messages[self.rank] = list(messages)
        self._barrier.wait(30)
        gathered = list(self._messages)
        self._barrier.wait(30)
        return gathered


@pytest.mark.parametrize("ranks", [2, 4])
@pytest.mark.parametrize("skipped", [0, 15])
def test_every_rank_gets_all_examples_in_the_order_of_one_reader(three, ranks, skipped):
    """Three partitions: of two ranks one reads two, of four ranks one reads none; one partition may end early."""
    alone = ExampleReader(*three, {})
    records = read(alone, 50)
    alone.close()
    begin_of_one = [r.offset for r in records if r.partition == 1][skipped]
    expected = [r for r in records if r.partition != 1 or r.offset >= begin_of_one]
    meeting = threading.Barrier(ranks), [None] * ranks

    def read_on(rank):
        reader = ExampleReader(*three, {1: begin_of_one}, ranks=Thread(rank, meeting))
        found = []
        while len(found) < len(expected):
            found += reader.poll(0.1)
        behind = reader.lag()
        reader.close()
        return found, behind

    with ThreadPoolExecutor(ranks) as pool:
        for found, behind in pool.map(read_on, range(ranks)):
            assert found == expected
            assert behind <= 3 * 2  # markers of the last transactions, where others read
