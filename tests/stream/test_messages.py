"""Messages and dead letters keep every byte."""

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from stream.messages import DeadLetter, Message

FEW = settings(deadline=None, max_examples=60)  # the machine may be busy

HEADERS = st.lists(st.tuples(st.text(), st.binary()), max_size=3).map(tuple)
MESSAGES = st.builds(
    Message,
    st.text(min_size=1),
    st.integers(0, 999),
    st.integers(0, 2**62),
    st.none() | st.binary(),
    st.none() | st.binary(),
    HEADERS,
)


@FEW
@given(MESSAGES)
def test_a_message_survives_json_byte_for_byte(message):
    assert Message.from_json(json.loads(json.dumps(message.to_json()))) == message


def test_a_dead_letter_says_why_and_whence_and_keeps_the_message_s_own_headers():
    letter = DeadLetter(Message("t", 3, 41, b"k", b"\xff", (("trace", b"\x00"),)), "invalid", "grün")
    assert letter.headers() == [
        ("reason", "grün".encode()),
        ("topic", b"t"),
        ("partition", b"3"),
        ("offset", b"41"),
        ("trace", b"\x00"),
    ]
