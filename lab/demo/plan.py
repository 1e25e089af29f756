"""The size and the pace of a demo, and how they are computed."""

from typing import NamedTuple

from stream.kafka.topics import TopicLimits

LIMITS = TopicLimits(retention_bytes=4 * 2**20, segment_bytes=2**20)
"""What the embedded broker keeps of each topic. It rewrites all it keeps once a second: 20 MB cost a quarter of a core.

What is kept, 3 MiB at least (whole segments go), must hold all that anyone still reads. The replay waits while a group
is MAX_LAG = 2,000 records behind what it has committed, which for the learner is where its last version ends; what is
on its way through the join by then adds 800 examples. 2,800 examples of 0.7 kB are 2.0 MB.
"""
MAX_LAG = 2_000
"""Above what a learner is behind when it publishes: 2 s x 730 examples/s."""


class Plan(NamedTuple):
    """One demo's size and pace. `events_per_second` is the replay's; a lag above MAX_LAG slows it down."""

    impressions: int | None
    """Only the first of them; None: all."""
    publish_seconds: float
    idle_seconds: float
    events_per_second: float
    requests_per_second: float = 20.0
    items_each: int = 20
    """Items that each request asks for."""
    compared: int = 10_000
    """Of the first examples, which the baselines learn after the stream: 20,000 of MovieLens take 85 s of one core."""


FULL = Plan(None, publish_seconds=2.0, idle_seconds=5.0, events_per_second=2_000.0)
"""All events: MovieLens' 100,000 impressions with 175,000 feedbacks take 138 s, 69 versions."""

QUICK = Plan(8_000, publish_seconds=2.0, idle_seconds=2.0, events_per_second=1_500.0, compared=2_000)
"""The first 8,000 impressions with their feedback, 22,000 events, take 15 s, 7 versions."""
