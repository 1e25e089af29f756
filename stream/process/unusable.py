"""When nearly no message of an input can be used: the stream stops before it empties the input into its dead letters.

Such as after a producer's change of format. Only messages that do not pass the validation count: feedback that comes
late is a dead letter too, but a pause would not help it.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

from kafka import TopicPartition

from runtime.errors import GraftError
from stream.join.partition import Partition
from stream.kafka.dead_letters import DeadLetter
from stream.process.report import Work

UNDECIDED_SECONDS = 5.0  # how long a commit waits for the messages that show what the first ones are
_FEW = 10  # messages of which as many may be bad as will: bad lines come in groups
_ENOUGH = 100  # messages that show what an input is


class MostlyUnusableError(GraftError):
    """Nearly no message of `topic` can be used; nothing was committed of those before `positions`."""

    def __init__(self, topic: str, positions: Mapping[TopicPartition, int], text: str) -> None:
        self.topic = topic
        self.positions = dict(positions)
        super().__init__(text)


class UnusableShare:
    """Judges what is about to be committed, input by input, against `most`: the share that may be unusable.

    `excused` names offsets before which unusable messages do not count: newer ones were seen that can be used.
    """

    def __init__(self, most: float, excused: Mapping[TopicPartition, int]) -> None:
        self._most = most
        self._excused = excused
        self._taken: Counter[str] = Counter()
        self._unusable: Counter[str] = Counter()

    def is_undecided(self, work: Work) -> bool:
        """Whether too few messages were taken to tell, and nearly none of them can be used."""
        unusable = self._count(work)
        return any(_FEW <= n < _ENOUGH and self._is_above(unusable[topic], n) for topic, n in work.taken.items())

    def check(self, work: Work, partitions: Mapping[int, Partition]) -> None:
        """MostlyUnusableError when `work` must not be committed, by itself or with what was committed before it."""
        unusable = self._count(work)
        for topic, bad in unusable.items():
            taken = work.taken[topic]
            for n, of_them in ((taken, bad), (taken + self._taken[topic], bad + self._unusable[topic])):
                if n >= _ENOUGH and self._is_above(of_them, n):
                    positions = {
                        TopicPartition(topic, p.number): p.positions.get(topic, 0) for p in partitions.values()
                    }
                    raise MostlyUnusableError(topic, positions, _text(topic, of_them, n, self._letters(work)))

    def committed(self, work: Work) -> None:
        """Remember the last messages: about `_ENOUGH` of each input."""
        self._taken.update(work.taken)
        self._unusable.update(self._count(work))
        for topic, n in self._taken.items():
            if n > _ENOUGH:
                self._unusable[topic] = self._unusable[topic] * _ENOUGH // n
                self._taken[topic] = _ENOUGH

    def _is_above(self, unusable: int, taken: int) -> bool:
        return unusable > self._most * taken

    def _count(self, work: Work) -> Counter[str]:
        return Counter(letter.message.topic for letter in self._letters(work))

    def _letters(self, work: Work) -> list[DeadLetter]:
        return [
            letter
            for letter in work.dead_letters
            if letter.stage == "validate" and letter.message.offset >= self._excused.get(_place(letter), 0)
        ]


def _place(letter: DeadLetter) -> TopicPartition:
    return TopicPartition(letter.message.topic, letter.message.partition)


def _text(topic: str, unusable: int, taken: int, letters: Sequence[DeadLetter]) -> str:
    newest = next(letter for letter in reversed(letters) if letter.message.topic == topic)
    message = newest.message
    return (
        f"{unusable} of the last {taken} messages of {topic} cannot be used, such as partition {message.partition} "
        f"offset {message.offset}: {newest.text}; they are not put aside. The stream goes on by itself when newer "
        "messages can be used; else mend the producer, or change the project and start the stream again; with "
        "stream.max_unusable_share = 1 it puts them aside"
    )
