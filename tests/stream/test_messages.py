"""Messages keep every byte."""

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from stream.messages import Message

FEW = settings(deadline=None, max_examples=60)  # the machine may be busy

HEADERS = st.lists(st.tuples(st.text(), st.none() | st.binary()), max_size=3).map(tuple)
MESSAGES = st.builds(
    Message,
    st.text(min_size=1),
    st.integers(0, 999),
    st.integers(0, 2**62),
    st.none() | st.binary(),
    st.none() | st.binary(),
    HEADERS,
    st.none(),  # the time is not saved
)


@FEW
@given(MESSAGES)
def test_a_message_survives_json_byte_for_byte(message):
    assert Message.from_json(json.loads(json.dumps(message.to_json()))) == message
