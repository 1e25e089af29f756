"""The teacher's reader: at least once, and again from where it was committed."""

import time
from contextlib import closing, suppress
from itertools import islice

import pytest
from kafka import TopicPartition
from kafka.errors import FencedInstanceIdError, KafkaConnectionError

from lab.embedded import EmbeddedKafka
from runtime.child import stop_child
from runtime.errors import DataLossError, GraftError, ServiceUnavailableError
from stream.events import TeacherRequest
from stream.kafka import connection
from stream.kafka.dead_letter_topics import Selection, dead_letters, replay_dead_letters
from stream.kafka.topics import ensure_topics
from stream.log.requests import PastRequests, TeacherRequestReader, offsets_between
from tests.stream.conftest import await_that
from tests.stream.pair import stream_config, topics


def request(number):
    return TeacherRequest(
        impression_id=f"i{number}",
        user_id=1,
        item_id="a",
        event_time_ms=number,
        context={},
        spec_id="s",
        features=[1.0],
    )


def send(kafka, made, numbers, partition=None):
    producer = connection.producer(kafka)
    for number in numbers:
        producer.send(made.teacher_requests, request(number).model_dump_json().encode(), b"k", partition=partition)
    producer.flush()
    producer.close()


def read(reader, count):
    found = []
    await_that(lambda: found.extend(reader.poll(0.1, 7)) or len(found) >= count, 30, lambda: str(found))
    return found


@pytest.fixture
def made(kafka, topic_prefix):
    made = topics(topic_prefix)
    ensure_topics(kafka, stream_config(topic_prefix), made)
    return made


def test_of_a_group_that_has_committed_nothing_the_lag_is_all_requests_also_before_the_first_are_polled(kafka, made):
    """A poll may end while Kafka is asked for the committed offsets; its answer is found by the lag."""
    send(kafka, made, range(20))
    with closing(TeacherRequestReader(kafka, made, "t")) as reader:
        coordinator = reader._consumer._coordinator
        await_that(lambda: coordinator.poll(timeout_ms=100) and bool(reader._consumer.assignment()), 30, str)
        assert not coordinator.refresh_committed_offsets_if_needed(timeout_ms=0)
        (asked,) = coordinator._offset_fetch_futures.values()
        await_that(lambda: asked.is_done, 30, str)
        assert reader.lag() == 20
        assert read(reader, 20) == [request(n) for n in range(20)]


def test_what_was_not_committed_comes_again_and_what_was_does_not(kafka, made):
    send(kafka, made, range(20))
    reader = TeacherRequestReader(kafka, made, "t")
    assert read(reader, 20) == [request(n) for n in range(20)]
    reader.close()
    again = TeacherRequestReader(kafka, made, "t")
    assert read(again, 20) == [request(n) for n in range(20)]
    again.commit()
    assert again.lag() == 0
    again.close()
    send(kafka, made, [20])
    last = TeacherRequestReader(kafka, made, "t")
    assert read(last, 1) == [request(20)]
    last.close()


def test_a_connection_that_breaks_inside_a_poll_is_an_outage(kafka, made, monkeypatch):
    """kafka-python answers most of them with no records, and raises where it looks for the group's coordinator."""

    def breaks(**_):
        raise KafkaConnectionError("111 ECONNREFUSED")

    with closing(TeacherRequestReader(kafka, made, "t")) as reader:
        with monkeypatch.context() as patched:
            patched.setattr(reader._consumer, "poll", breaks)
            with pytest.raises(ServiceUnavailableError, match="does not answer"):
                reader.poll(0.1, 7)
        send(kafka, made, [1])
        assert read(reader, 1) == [request(1)]


def test_before_the_first_poll_of_new_partitions_all_of_them_is_the_lag(kafka, made):
    send(kafka, made, range(20))
    with closing(TeacherRequestReader(kafka, made, "t")) as reader:
        coordinator = reader._consumer._coordinator
        await_that(
            lambda: coordinator.poll(timeout_ms=100) and reader._consumer.assignment(), 30, lambda: "no partition"
        )
        assert {reader.lag() for _ in range(50)} == {20}  # kafka-python learns meanwhile that nothing was committed
        assert read(reader, 20) == [request(n) for n in range(20)]
        assert reader.lag() == 0


def test_a_poll_gives_no_more_than_it_was_asked_for(kafka, made):
    send(kafka, made, range(20))
    reader = TeacherRequestReader(kafka, made, "t")
    batches = []
    await_that(lambda: batches.append(reader.poll(0.1, 7)) or sum(map(len, batches)) == 20, 30, lambda: str(batches))
    assert max(map(len, batches)) <= 7
    reader.close()


def ids(requests):
    return [request.impression_id for request in requests]


def test_the_newest_requests_come_before_their_turn_and_move_nothing(kafka, made):
    send(kafka, made, range(100))
    with closing(TeacherRequestReader(kafka, made, "t")) as reader:
        first = read(reader, 1)
        newest = []
        await_that(lambda: newest.extend(ids(reader.newest(7))) or len(newest) >= 7, 30, lambda: str(newest))
        assert newest == [f"i{number}" for number in range(93, 100)]
        assert reader.newest(7) == []  # none twice
        send(kafka, made, [100])
        producer = connection.producer(kafka)
        producer.send(made.teacher_requests, b"no request", b"k")
        producer.flush()
        producer.close()
        send(kafka, made, range(101, 103))
        await_that(lambda: newest.extend(ids(reader.newest(7))) or "i102" in newest, 30, lambda: str(newest))
        assert newest[7:] == ["i100", "i101", "i102"]
        assert reader.waited_seconds > 0
        in_turn = ids(first) + ids(read(reader, 90))
        assert in_turn == [f"i{number}" for number in range(len(in_turn))]


def test_without_partitions_there_is_nothing_new(kafka, made):
    with closing(TeacherRequestReader(kafka, made, "t")) as reader:
        assert (reader.newest(7), reader.waited_seconds) == ([], 0.0)


def written_since(kafka, topics, since_ms):
    """The requests that were written since then and before this call."""
    return [request for _, _, request in between(kafka, topics, *offsets_between(kafka, topics, since_ms, None))]


def between(kafka, topics, starts, ends):
    with closing(PastRequests(kafka, topics, starts, ends)) as requests:
        return list(requests)


def test_requests_of_a_topic_that_nobody_has_made_are_an_error_and_not_none(kafka, topic_prefix, monkeypatch):
    monkeypatch.setattr("stream.kafka.topics._HEARD_OF_SECONDS", 0.5)
    with pytest.raises(ServiceUnavailableError, match="'graft stream run' makes the topics of a project"):
        offsets_between(kafka, topics(topic_prefix), 0, None)


def test_the_requests_since_a_time_end_where_the_topic_ended(kafka, made):
    send(kafka, made, range(3))
    time.sleep(0.02)
    since_ms = time.time_ns() // 1_000_000
    time.sleep(0.02)
    send(kafka, made, range(3, 8))
    bounds = offsets_between(kafka, made, since_ms, None)
    send(kafka, made, range(8, 10))
    assert [found for *_, found in between(kafka, made, *bounds)] == [request(n) for n in range(3, 8)]
    assert len(written_since(kafka, made, 0)) == 10
    assert written_since(kafka, made, since_ms + 3_600_000) == []


def test_the_requests_of_several_partitions_come_by_their_event_time(kafka, topic_prefix):
    made = topics(topic_prefix)
    ensure_topics(kafka, stream_config(topic_prefix, partitions=3), made)
    send(kafka, made, range(0, 900, 2), partition=2)  # more than one poll gives; partition 1 stays empty
    send(kafka, made, range(1, 900, 2), partition=0)
    assert written_since(kafka, made, 0) == [request(n) for n in range(900)]


@pytest.mark.parametrize("call", ["poll", "commit"])
def test_a_reader_whose_name_another_one_has_taken_says_so(kafka, made, monkeypatch, call):
    with closing(TeacherRequestReader(kafka, made, "t")) as reader:

        def fenced(**_given):
            raise FencedInstanceIdError

        monkeypatch.setattr(reader._consumer, call, fenced)
        with pytest.raises(GraftError, match="another 'graft teacher run' process named 't' has joined and taken over"):
            reader.poll(0.1, 1) if call == "poll" else reader.commit()


@pytest.mark.kafka_home
def test_on_apache_kafka_two_of_one_name_end_one_of_them_and_two_names_share_the_work(apache_kafka, topic_prefix):
    servers, made = apache_kafka.servers, topics(topic_prefix)
    ensure_topics(servers, stream_config(topic_prefix, 2), made)
    first = TeacherRequestReader(servers, made, "t")
    await_that(lambda: first.poll(0.1, 7) == [] and first._consumer.assignment(), 30, lambda: "not assigned")
    with closing(TeacherRequestReader(servers, made, "t")) as second:
        with pytest.raises(GraftError, match="process named 't' has joined and taken over"):
            read_in_turn(first, second)
        first.close()
        with closing(TeacherRequestReader(servers, made, "u")) as other:
            readers = (second, other)
            await_that(lambda: poll_all(*readers) == [1, 1], 30, lambda: "the partitions are not shared")


def poll_all(*readers):
    """How many partitions each reader has after one more poll of all."""
    for reader in readers:
        reader.poll(0.1, 7)
    return [len(reader._consumer.assignment()) for reader in readers]


def read_in_turn(*readers):
    """For 30 s at most."""
    for _ in range(150):
        poll_all(*readers)
        for reader in readers:
            with suppress(ServiceUnavailableError):  # as the batch scorer waits while the group moves
                reader.lag()


def only_letter(kafka, made):
    with dead_letters(kafka, made) as reader:
        (letter,) = reader.selected(Selection(topic=made.teacher_requests))
    return letter


def test_a_request_that_is_set_aside_is_a_dead_letter_with_its_bytes_and_goes_back_by_a_replay(kafka, made):
    send(kafka, made, range(3))
    with closing(TeacherRequestReader(kafka, made, "t")) as reader:
        found = read(reader, 3)
        reader.set_aside([(found[1], "the teacher cannot compute it: index 9")])
        reader.commit()
        letter = only_letter(kafka, made)
        assert (letter.code, letter.stage, letter.attempt) == ("refused", "score", 1)
        assert letter.text == "the teacher cannot compute it: index 9"
        assert (letter.message.value, letter.message.key) == (found[1].model_dump_json().encode(), b"k")
        back = replay_dead_letters(kafka, made, Selection(code="refused"), dry_run=False, advance=lambda _: None)
        assert back.replayed == 1
        again = read(reader, 1)
        assert again == [found[1]]
        reader.set_aside([(again[0], "still")])
        letter = only_letter(kafka, made)
        assert (letter.attempt, letter.text) == (2, "still")


def test_the_offsets_between_two_times_hold_what_was_written_then_and_a_reader_goes_on_within_them(kafka, made):
    send(kafka, made, range(4))
    time.sleep(0.02)  # the boundary between two milliseconds of the broker's clock
    since_ms = time.time_ns() // 1_000_000
    send(kafka, made, range(4, 10))
    time.sleep(0.02)
    until_ms = time.time_ns() // 1_000_000
    send(kafka, made, range(10, 12))
    starts, ends = offsets_between(kafka, made, since_ms, until_ms)
    found = between(kafka, made, starts, ends)
    assert [one.event_time_ms for _, _, one in found] == list(range(4, 10))
    places = {(partition, offset): one for partition, offset, one in found}
    partition, offset, _ = found[2]
    after = {p: offset + 1 if p == partition else ends[p] for p in ends}
    rest = between(kafka, made, after, ends)
    assert rest == [(p, n, one) for (p, n), one in places.items() if p == partition and n > offset]
    assert between(kafka, made, ends, ends) == []
    later_ms = until_ms + 60_000
    starts, ends = offsets_between(kafka, made, later_ms, later_ms)
    assert starts == ends


@pytest.mark.parametrize("start", [2, 8])
def test_a_topic_that_ends_before_the_wanted_requests_is_told(kafka, made, start):
    """As after it was made anew: the next offset may be in it or beyond its end."""
    send(kafka, made, range(5))
    with pytest.raises(DataLossError, match=r"its last offset is 5 now and was 9: it was made anew; begin anew"):
        between(kafka, made, {0: start}, {0: 9})


@pytest.mark.kafka_home
def test_requests_that_are_deleted_while_they_are_read_are_passed_over(apache_kafka, topic_prefix):
    """Retention may be faster than a backfill that spares its teacher."""
    servers, made = apache_kafka.servers, topics(topic_prefix)
    ensure_topics(servers, stream_config(topic_prefix), made)
    send(servers, made, range(20_000))  # more than is fetched ahead
    with closing(PastRequests(servers, made, {0: 0}, {0: 20_000})) as requests:
        offsets = (offset for _, offset, _ in requests)
        first = list(islice(offsets, 10))
        with closing(connection.admin(servers)) as admin:
            admin.delete_records({TopicPartition(made.teacher_requests, 0): 19_900})
        rest = list(offsets)
    assert first + rest == [*range(len(first + rest) - 100), *range(19_900, 20_000)]
    assert len(rest) < 19_000


def test_a_topic_that_is_removed_and_made_anew_is_read_on_from_its_oldest_request(apache_kafka, topic_prefix, caplog):
    servers, made = apache_kafka.servers, topics(topic_prefix)
    ensure_topics(servers, stream_config(topic_prefix), made)
    send(servers, made, range(20))
    with closing(TeacherRequestReader(servers, made, "t")) as reader, closing(connection.admin(servers)) as admin:
        assert len(read(reader, 20)) == 20
        reader.commit()
        admin.delete_topics([made.teacher_requests])
        await_that(lambda: made.teacher_requests not in admin.list_topics(), 30, str)
        ensure_topics(servers, stream_config(topic_prefix), made)
        send(servers, made, [30, 31])
        assert read(reader, 2) == [request(30), request(31)]
        assert reader.lag() == 0
    assert "teacher requests were deleted before they were scored" in caplog.text


def test_a_kafka_that_goes_away_ends_the_reading_of_a_history(topic_prefix):
    with EmbeddedKafka() as broker:
        servers, made = broker.servers, topics(topic_prefix)
        ensure_topics(servers, stream_config(topic_prefix), made)
        send(servers, made, range(5))
        with closing(PastRequests(servers, made, {0: 0}, {0: 9})) as requests:
            found = iter(requests)
            assert next(found)[1] == 0
            stop_child(broker.process)
            with pytest.raises(ServiceUnavailableError, match="does not answer"):
                list(found)
