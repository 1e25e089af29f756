"""Tells when all events are learnt, as far as they can be by now."""

import time

from graft.project import Project
from lab.dev.session import Session
from stream.groups import LEARNER_GROUP, STREAM_GROUP, lag_of

_QUIET_SECONDS = 6.0  # the stream sets its gauges every 5 s
_MOST_WAITED_SECONDS = 60.0
_NOT_NOTED_SECONDS = 75.0  # below STALLED_SECONDS, which end the session


class Learnt:
    """Tells at each call whether the events are sent, read, joined and learnt, and nothing moves any more.

    Once no event comes, an impression waits for its feedback by the wall clock: for a minute at most, where its window
    may be days.
    """

    def __init__(self, session: Session, project: Project, kafka_servers: str) -> None:
        self._session, self._project, self._kafka = session, project, kafka_servers
        longest = max(task.window_seconds for task in project.tasks)
        self._patience = _QUIET_SECONDS + min(_MOST_WAITED_SECONDS, longest + project.stream.idle_seconds)
        self._before = (-1, -1)
        self._moved_at = time.monotonic()

    def __call__(self) -> bool:
        """Whether it is so now; asked again and again."""
        watch, now = self._session.watch, time.monotonic()
        if (reached := (watch.read, watch.learned)) != self._before:
            self._before, self._moved_at = reached, now
        quiet = now - self._moved_at
        if not self._session.is_sent() or quiet < _QUIET_SECONDS or (watch.pending != 0 and quiet < self._patience):
            return False
        stream, learner = (lag_of(self._kafka, self._project.topics, group) for group in (STREAM_GROUP, LEARNER_GROUP))
        # Of each partition the last offset is the marker of a transaction, which no reader takes. And a learner that
        # set aside all of the last examples does not commit its position.
        noted = learner.records <= self._project.stream.partitions or quiet > _NOT_NOTED_SECONDS
        return stream.records == 0 and noted
