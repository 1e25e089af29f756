"""What a run waits for when its troubles are over: every process comes to the end of its work."""

from collections.abc import Iterator
from contextlib import closing

from stream.kafka import connection
from stream.kafka.groups import STREAM_GROUP, lag
from student.versions.registry import Registry
from tests.chaos.follower import Follower
from tests.chaos.verdict import outcomes_of, teacher_line
from tests.chaos.world import World

_LONGEST_SECONDS = 180.0  # for each; above every time-out, and above a restart on a busy machine


def await_quiet(world: World, follower: Follower, messages: int) -> Iterator[str]:
    """Wait for the stream, the learner and the teacher, in this order; what has not come to its end in time."""
    topics = world.project.topics
    registry = Registry(world.versions)

    with closing(connection.admin(world.kafka.servers)) as admin:

        def is_decided() -> bool:
            if follower.fault:
                return True
            if len(follower.inputs) < messages or lag(admin, topics, STREAM_GROUP).records:
                return False
            return not any(outcomes_of(world, follower).faults())

        if not world.await_that(is_decided, _LONGEST_SECONDS):
            yield "messages have no outcome, or a wrong one"

    def has_learnt() -> bool:
        version = registry.latest()
        return bool(version) and registry.load_manifest(version).examples >= len(follower.examples)

    if not world.await_that(has_learnt, _LONGEST_SECONDS):
        yield "the learner has not learnt all examples"
    if not world.await_that(lambda: not teacher_line(world, follower).faults, _LONGEST_SECONDS):
        yield "the teacher has not scored all requests"
