"""An endless stream of messages with every poison in it, from one seed, block by block."""

from collections import deque
from collections.abc import Iterator
from json import dumps
from random import Random
from typing import Any

from tests.chaos.events import Sent, answers, feedback, impression, message, poison
from tests.chaos.project import LOUDNESS

BLOCK_MS = 5_000
"""Event time that a block takes."""

_SHOWN = 20  # impressions of a block
_REMEMBERED = 4_000  # impressions that may come again: longer ago than the stream remembers, too
_POISON = 12  # of a block, on average
_LARGE_EVERY = 2_000  # blocks
_LARGE = 900_000  # bytes; five of them are more than may wait for one impression
_EXTREME = (9e8, -9e8, 1e-300)


class Fuzz:
    """Blocks of about 60 messages; event time begins at `start_ms` and `window_ms` is that of both tasks."""

    def __init__(self, seed: int, start_ms: int, window_ms: int) -> None:
        self._random = Random(seed)
        self._start_ms, self._window_ms = start_ms, window_ms
        self._sent: deque[Sent] = deque(maxlen=_REMEMBERED)

    def blocks(self) -> Iterator[list[Sent]]:
        """Each block's messages in the order in which they are to be sent; their times are event time."""
        number = 0
        while True:
            block = list(self._block(number))
            block.sort(key=lambda sent: sent.at_ms + self._random.random() * 1_000)
            yield block
            if number % _LARGE_EVERY == _LARGE_EVERY // 4:
                yield self._large(number)
            number += 1

    def _block(self, number: int) -> Iterator[Sent]:
        random, begin_ms = self._random, self._start_ms + number * BLOCK_MS
        for one in range(_SHOWN):
            name, shown_ms = f"f{number * _SHOWN + one}", begin_ms + random.randrange(BLOCK_MS)
            shown = self._with_loudness(impression(random, name, shown_ms))
            yield self._kept(message(shown, shown_ms))
            for answer in answers(random, name, shown_ms, self._window_ms):
                if answer["task"] == "dwell" and random.random() < 0.02:
                    answer["value"] = random.choice(_EXTREME)
                yield self._kept(message(answer, answer["event_time_ms"]))
            if random.random() < 0.1:
                yield random.choice(self._sent)._replace(at_ms=shown_ms)  # again, however late
            if random.random() < _POISON / _SHOWN:
                yield poison(random, name, shown_ms)

    def _kept(self, sent: Sent) -> Sent:
        self._sent.append(sent)
        return sent

    def _with_loudness(self, shown: dict[str, Any]) -> dict[str, Any]:
        if self._random.random() < 0.5:
            loudness = self._random.choice((1e20, -3e38, 1e-320)) if self._random.random() < 0.02 else 1.0
            shown["context"][LOUDNESS] = loudness * self._random.random()
        return shown

    def _large(self, number: int) -> list[Sent]:
        """5 MB, which only gzip makes small enough for the topic, and much feedback for one that was never shown."""
        at_ms, name = self._start_ms + number * BLOCK_MS, f"large{number}"
        huge = b'{"impression_id": "' + b"x" * 5_000_000 + b'"}'
        answer = dumps(feedback(name, "click", 1, at_ms)).encode()
        padded = answer[:-1] + b" " * _LARGE + answer[-1:]
        waiting = [Sent(at_ms, "feedback", name.encode(), padded) for _ in range(5)]
        return [Sent(at_ms, "impressions", name.encode(), huge, is_invalid=True), *waiting]
