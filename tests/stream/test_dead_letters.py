"""A dead letter keeps its message whole, says why, and no message can forge the reason."""

import hashlib

from hypothesis import given, settings
from hypothesis import strategies as st

from stream.kafka.dead_letters import MAX_DEAD_LETTER_BYTES, DeadLetter, StoredLetter, stored_letter
from stream.messages import Message

FEW = settings(deadline=None, max_examples=100)  # the machine may be busy

NAMES = st.text(max_size=20) | st.sampled_from(
    [
        "graft.errors.code",
        "graft.errors.attempt",
        "__streams.errors.topic",
        "graft.original.graft.null.x",
        "graft.null.",
    ]
)
HEADERS = st.lists(st.tuples(NAMES, st.none() | st.binary(max_size=20)), max_size=4).map(tuple)
MESSAGES = st.builds(
    Message,
    st.sampled_from(["impressions", "feedback"]),
    st.integers(0, 999),
    st.integers(0, 2**62),
    st.none() | st.binary(max_size=20),
    st.none() | st.binary(max_size=20),
    HEADERS,
    st.none(),  # the time is not part of a dead letter
)


def stored(letter: DeadLetter) -> StoredLetter:
    """The letter as it is read back from its topic."""
    key, value, headers = letter.record()
    return stored_letter("t.dlq", 3, 17, 5_000, Message("t.dlq", 3, 17, key, value, tuple(headers)))


@FEW
@given(MESSAGES, st.text(), st.sampled_from(["invalid", "late"]))
def test_a_dead_letter_gives_its_message_back_byte_for_byte_whatever_its_headers_are_called(message, text, code):
    found = stored(DeadLetter(message, code, text, "validate"))
    own = tuple((name, value) for name, value in message.headers if name != "graft.errors.attempt")
    empty = b"" if message.key is None and message.value is None else message.value
    assert found.message == message._replace(headers=own, value=empty)
    assert (found.code, found.stage, found.partition, found.offset, found.written_ms) == (
        code,
        "validate",
        3,
        17,
        5_000,
    )
    assert not found.is_cut


def test_a_dead_letter_says_why_and_whence_in_the_headers_of_kafka_streams_and_ours():
    letter = DeadLetter(Message("t", 3, 41, b"k", b"\xff", (("trace", b"\x00"),)), "invalid", "grün", "validate")
    assert letter.record() == (
        b"k",
        b"\xff",
        [
            ("__streams.errors.message", "grün".encode()),
            ("__streams.errors.topic", b"t"),
            ("__streams.errors.partition", b"3"),
            ("__streams.errors.offset", b"41"),
            ("graft.errors.code", b"invalid"),
            ("graft.errors.stage", b"validate"),
            ("graft.errors.attempt", b"1"),
            ("trace", b"\x00"),
        ],
    )


def test_a_message_that_claims_our_headers_is_not_believed():
    forged = (("graft.errors.code", b"fine"), ("__streams.errors.offset", b"0"), ("__streams.errors.offset", None))
    found = stored(DeadLetter(Message("t", 3, 41, b"k", b"v", forged), "late", "came late"))
    assert (found.code, found.message.offset, found.message.headers) == ("late", 41, forged)


def test_every_replay_counts_one_attempt_more():
    again = Message("t", 0, 9, b"k", b"v", (("graft.errors.attempt", b"2"),))
    assert stored(DeadLetter(again, "late", "")).attempt == 3
    odd = Message("t", 0, 9, b"k", b"v", (("graft.errors.attempt", b"-1e9"),))
    assert stored(DeadLetter(odd, "late", "")).attempt == 1


def test_a_value_that_does_not_fit_gives_way_to_its_size_and_digest():
    value = bytes(MAX_DEAD_LETTER_BYTES)
    key, kept, headers = DeadLetter(Message("t", 0, 7, b"k", value), "invalid", "too long").record()
    assert (key, kept) == (b"k", b"")
    assert dict(headers)["graft.errors.size"] == str(len(value)).encode()
    assert dict(headers)["graft.errors.sha256"] == hashlib.sha256(value).hexdigest().encode()
    assert stored(DeadLetter(Message("t", 0, 7, b"k", value), "invalid", "too long")).is_cut


def test_a_key_or_own_headers_that_do_not_fit_give_way_too():
    huge = (("x", bytes(MAX_DEAD_LETTER_BYTES)),)
    key, kept, headers = DeadLetter(Message("t", 0, 7, b"k", b"v", huge), "invalid", "too long").record()
    assert (key, kept, "x" in dict(headers)) == (None, b"", False)
    assert dict(headers)["__streams.errors.offset"] == b"7"
