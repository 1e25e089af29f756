"""Simulated time: processes as threads, of which exactly one runs, and actions, all in the order of their times."""

import threading
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count


class Killed(BaseException):
    """Ends a killed process's thread wherever it stands."""


class Participant:
    """A thread that takes part in the simulated time."""

    def __init__(self) -> None:
        self.turn = threading.Lock()
        self.turn.acquire()
        self.is_killed = self.is_over = False
        self.wake = 0
        """Which of its wake-ups in the queue still counts."""


class Timeline:
    """The queue of what happens next, and the time of what happens now, in milliseconds.

    Who sleeps runs the queue until its own turn comes, so threads are switched only from one process to another. The
    thread that makes the timeline takes part in it.
    """

    def __init__(self) -> None:
        self.now_ms = 0.0
        self.running = Participant()
        self.error: BaseException | None = None
        self._main = self.running
        self._queue: list[tuple[float, int, Callable[[], None] | Participant, int]] = []
        self._order = count()
        self._threads: list[tuple[Participant, threading.Thread]] = []

    def at(self, when_ms: float, action: Callable[[], None]) -> None:
        """Call `action`, which must not sleep, at this time."""
        heappush(self._queue, (when_ms, next(self._order), action, 0))

    def start(self, body: Callable[[], None]) -> Participant:
        """Run `body` in a thread of its own, from now on."""
        participant = Participant()
        thread = threading.Thread(target=self._live, args=(participant, body), daemon=True)
        self._threads.append((participant, thread))
        thread.start()
        self._wake(participant, self.now_ms)
        return participant

    def kill(self, participant: Participant) -> None:
        """End a sleeping participant's thread by `Killed`."""
        if not participant.is_over:
            participant.is_killed = True
            self._wake(participant, self.now_ms)

    def sleep(self, duration_ms: float) -> None:
        """Let time pass for the one that runs; Killed when it was killed meanwhile."""
        me = self.running
        if me.is_killed:
            raise Killed
        self._wake(me, self.now_ms + duration_ms)
        self._pass_on(me)
        if me.is_killed:
            raise Killed
        if me is self._main and self.error:
            raise self.error

    def end(self) -> None:
        """Kill every participant but the caller."""
        for participant, thread in self._threads:
            self.kill(participant)
            while not participant.is_over:
                self._wake(self._main, self.now_ms)
                self._pass_on(self._main)
            thread.join()

    def _wake(self, participant: Participant, when_ms: float) -> None:
        participant.wake += 1
        heappush(self._queue, (when_ms, next(self._order), participant, participant.wake))

    def _live(self, participant: Participant, body: Callable[[], None]) -> None:
        participant.turn.acquire()
        try:
            if not participant.is_killed:
                body()
        except Killed:
            pass
        except BaseException as error:  # noqa: BLE001 - raised again by the main thread
            self._fail(error)
        participant.is_over = True
        self._pass_on(None)

    def _pass_on(self, me: Participant | None) -> None:
        """Run the queue until a participant's turn comes; return when it is `me`, at once where that is None."""
        while True:
            when_ms, _, what, wake = heappop(self._queue)
            self.now_ms = max(self.now_ms, when_ms)
            if not isinstance(what, Participant):
                self._act(what)
            elif what.wake == wake and not what.is_over:
                self.running = what
                if what is me:
                    return
                what.turn.release()
                if me is not None:
                    me.turn.acquire()
                return

    def _act(self, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:  # noqa: BLE001 - raised again by the main thread
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        self.error = self.error or error
        self._wake(self._main, self.now_ms)
