"""What is learnt does not depend on how the log is cut into calls, or where a learner ends and another goes on."""

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from student.learn.learner import Learner
from tests.student.conftest import Toy

EXAMPLES = 90
TOY = Toy()
LOG = [TOY.example(number) for number in range(EXAMPLES)]


def bits(tensors: Mapping[str, Any]) -> dict[str, bytes]:
    return {name: tensor.tobytes() for name, tensor in tensors.items()}


def learnt(cuts: list[int], restarts: set[int]) -> Learner:
    """Learns the log in calls that end at `cuts`; a new learner goes on at `restarts`."""
    learner = Learner(TOY.setup())
    for first, last in pairwise([0, *cuts, EXAMPLES]):
        if first in restarts:
            learner = gone_on(learner)
        learner.learn(LOG[first:last], TOY.logits(LOG[first:last]))
    return learner


def gone_on(learner: Learner) -> Learner:
    other = Learner(TOY.setup())
    other.restore({name: tensor.copy() for name, tensor in learner.tensors().items()}, learner.state())
    return other


WHOLE = bits(learnt([], set()).tensors())


@settings(max_examples=15)
@given(st.lists(st.integers(1, EXAMPLES - 1), max_size=30, unique=True).map(sorted), st.data())
def test_neither_calls_nor_restarts_move_a_bit(cuts: list[int], data: st.DataObject) -> None:
    restarts = data.draw(st.sets(st.sampled_from(cuts), max_size=4)) if cuts else set()
    assert bits(learnt(cuts, restarts).tensors()) == WHOLE


def test_a_call_may_fill_several_steps(toy: Any, equal: Callable[..., None]) -> None:
    one, other = Learner(toy.setup()), Learner(toy.setup())
    one.learn(LOG, toy.logits(LOG))
    for example in LOG:
        other.learn([example], toy.logits([example]))
    equal(one.tensors(), other.tensors())


def test_the_first_steps_are_small_and_all_later_ones_full(toy: Any) -> None:
    learner, ends = Learner(toy.setup()), []
    for number, example in enumerate(LOG[:32]):
        learner.learn([example], toy.logits([example]))
        if learner.evaluation.whole()["hidden"]["control"].count == number + 1:
            ends.append(number + 1)
    assert ends == [1, 2, 4, 8, 16, 24, 32]


def test_what_waits_was_learnt_by_the_posteriors(toy: Any) -> None:
    """A label counts for the next request, long before the networks see it."""
    learner = Learner(toy.setup(student=toy.student.model_copy(update={"micro_batch": 64})))
    learner.learn(LOG[:65], toy.logits(LOG[:65]))
    features = toy.spec.encode(toy.spec.columns_of([LOG[65].features]))
    before = learner.score(features)[0, 0]
    learner.learn(LOG[65:66], toy.logits(LOG[65:66]))
    moved = learner.score(features)[0, 0] - before
    assert (moved > 0) == (LOG[65].labels["like"] == 1)
    assert learner.evaluation.whole()["like"]["student"].count == 64


def test_unshown_rows_that_waited_in_an_earlier_release_are_passed_over(toy: Any, equal: Callable[..., None]) -> None:
    learner = Learner(toy.setup())
    learner.learn(LOG[:13], toy.logits(LOG[:13]))
    waiting = {name: tensor for name, tensor in learner.tensors().items() if name.startswith("open/")}
    assert "open/label_BK" in waiting
    unshown = {name.replace("open/", "open/unshown."): tensor for name, tensor in waiting.items()}
    other = Learner(toy.setup())
    other.restore({**learner.tensors(), **unshown}, learner.state())
    equal(other.tensors(), learner.tensors())


@pytest.mark.parametrize("micro_batch", [1, 3, 100])
def test_a_step_that_was_open_under_another_micro_batch_is_closed(toy: Any, micro_batch: int) -> None:
    old = Learner(toy.setup(student=toy.student.model_copy(update={"micro_batch": 64})))
    old.learn(LOG[:80], toy.logits(LOG[:80]))
    new = Learner(toy.setup(student=toy.student.model_copy(update={"micro_batch": micro_batch})))
    new.restore(old.tensors(), old.state())
    assert new.examples == 80
    new.learn(LOG[80:], toy.logits(LOG[80:]))
    assert new.examples == EXAMPLES
