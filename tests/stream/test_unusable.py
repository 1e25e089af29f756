"""Which work may be committed, and which shows that nearly nothing of an input can be used."""

from collections import Counter

import pytest
from kafka import TopicPartition

from stream.kafka.dead_letters import DeadLetter
from stream.messages import Message
from stream.process.report import MostlyUnusableError, UnusableShare, Work

AT = TopicPartition("impressions", 0)


def work(taken: int, unusable: int, stage: str = "validate", topic: str = "impressions") -> Work:
    letters = [DeadLetter(Message(topic, 0, n, None, b"x"), "invalid", f"fault {n}", stage) for n in range(unusable)]
    return Work(taken=Counter({topic: taken}), dead_letters=letters)


def share(most: float = 0.9, excused: int = 0) -> UnusableShare:
    return UnusableShare(most, {AT: excused})


def passes(judge: UnusableShare, *works: Work) -> bool:
    for one in works:
        try:
            judge.check(one, {})
        except MostlyUnusableError:
            return False
        judge.committed(one)
    return True


@pytest.mark.parametrize(("taken", "unusable", "may_pass"), [(99, 99, True), (100, 90, True), (100, 91, False)])
def test_a_hundred_messages_are_judged_and_a_tenth_of_sound_ones_is_enough(taken, unusable, may_pass):
    assert passes(share(), work(taken, unusable)) == may_pass


def test_the_error_names_topic_numbers_place_and_what_to_do():
    with pytest.raises(MostlyUnusableError) as error:
        share().check(work(200, 199), {})
    assert str(error.value) == (
        "199 of the last 200 messages of impressions cannot be used, such as partition 0 offset 198: fault 198; they "
        "are not put aside. The stream goes on by itself when newer messages can be used; else mend the producer, or "
        "change the project and start the stream again; with stream.max_unusable_share = 1 it puts them aside"
    )


def test_small_commits_are_judged_together():
    assert passes(share(), *[work(9, 9)] * 11)
    assert not passes(share(), *[work(9, 9)] * 12)


def test_a_sound_past_does_not_let_a_new_format_through():
    judge = share()
    assert passes(judge, work(100_000, 0))
    assert not passes(judge, work(100, 100))


def test_a_bad_past_does_not_stop_sound_messages():
    assert passes(share(), work(99, 99), work(1_000, 0))


def test_inputs_are_judged_apart():
    both = work(150, 150, topic="feedback")
    both.taken["impressions"] = 10_000
    assert not passes(share(), both)


def test_dead_letters_of_the_join_do_not_count():
    assert passes(share(), work(1_000, 1_000, stage="join"))


def test_a_bound_of_1_lets_everything_pass():
    assert passes(share(most=1.0), work(1_000, 1_000))


def test_messages_before_an_excused_offset_do_not_count():
    assert passes(share(excused=1_000), work(1_000, 1_000))
    assert not passes(share(excused=1_000), work(10_200, 10_200))


@pytest.mark.parametrize(
    ("taken", "unusable", "waits"), [(9, 9, False), (10, 10, True), (99, 99, True), (99, 10, False)]
)
def test_a_commit_waits_for_more_only_while_nearly_all_of_a_few_messages_are_unusable(taken, unusable, waits):
    assert share().is_undecided(work(taken, unusable)) == waits
