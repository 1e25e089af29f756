"""The learner's loop outlives examples that it cannot learn: it sets them aside, and a restart decides the same."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtime.errors import InvalidInputError
from stream.events import Example
from student.learn.learner import Learner
from student.learn.process.train import REFUSED_STEPS
from student.versions.registry import Registry
from student.versions.remote import RemoteRegistry
from tests.student.learn.learning_in_memory import learn_in_memory


def set_aside(registry: Registry) -> list[tuple[int, str]]:
    path = registry.folder / "set_aside.jsonl"
    if not path.exists():
        return []
    lines = map(json.loads, path.read_text().splitlines())
    return [(line["offset"], line["reason"]) for line in lines]


def end(registry: Registry) -> tuple[int, dict[str, int], dict[str, Any]]:
    version = registry.latest()
    assert version is not None
    manifest, tensors, _ = registry.load_learner(version)
    return manifest.examples, manifest.offsets, tensors


UNLEARNABLE: dict[str, tuple[Callable[[Example], dict[str, Any]], str]] = {
    "another spec": (lambda _: {"spec_id": "ffff"}, "spec_id must be"),
    "a missing task": (
        lambda e: {"labels": {"like": 1.0, "rating": e.labels["rating"]}},
        "labels must have hidden, got",
    ),
    "too few features": (lambda e: {"features": e.features[:-1]}, "features must have 5 values, got 4"),
    "a text for a number": (lambda e: {"features": [*e.features[:-1], "x"]}, "mean must be a number, got 'x'"),
    "a number without float": (lambda e: {"features": [10**400, *e.features[1:]]}, "age must be a number, got 1000"),
    "a list for an id": (lambda e: {"features": [20, [1.0], *e.features[2:]]}, "user_id must be a number or a text"),
    "a list of another length": (
        lambda e: {"features": [20, 1, [1.0], *e.features[3:]]},
        "taste must be a list of numbers of the declared length, got [1.0]",
    ),
}


@pytest.mark.parametrize("name", UNLEARNABLE)
def test_an_example_that_cannot_be_learnt_is_set_aside_and_the_others_are_learnt(
    toy: Any, tmp_path: Path, equal: Callable[..., None], name: str
) -> None:
    change, reason = UNLEARNABLE[name]
    examples = [toy.example(n) for n in range(32)]
    examples[11] = examples[11].model_copy(update=change(examples[11]))
    registry = Registry(tmp_path)
    learn_in_memory(toy, registry, examples)
    ((offset, told),) = set_aside(registry)
    assert offset == 11
    assert told.startswith(f"example m11: {reason}")
    learnt, offsets, tensors = end(registry)
    assert (learnt, offsets) == (31, {"0": 32})
    alone = Learner(toy.setup())
    for batch in (examples[:8], [*examples[8:11], *examples[12:16]], examples[16:24], examples[24:]):
        alone.learn(batch, np.full((len(batch), 3), np.nan, np.float32))
    equal(tensors, alone.tensors())


def test_a_micro_batch_of_unlearnable_examples_is_passed(toy: Any, tmp_path: Path) -> None:
    examples = [toy.example(n) for n in range(32)]
    for n in range(8, 16):
        examples[n] = examples[n].model_copy(update={"spec_id": "ffff"})
    registry = Registry(tmp_path)
    learn_in_memory(toy, registry, examples)
    assert [offset for offset, _ in set_aside(registry)] == list(range(8, 16))
    assert end(registry)[:2] == (24, {"0": 32})


def test_too_many_unlearnable_examples_in_a_row_stop_the_learner_with_advice_again_and_again(
    toy: Any, tmp_path: Path
) -> None:
    """A project of other features must not use the topic up: no offset moves past them."""
    examples = [toy.example(n) for n in range(250)]
    for n in range(40, 140):
        examples[n] = examples[n].model_copy(update={"spec_id": "ffff"})
    registry = Registry(tmp_path)
    for _ in range(2):
        with pytest.raises(InvalidInputError) as caught:
            learn_in_memory(toy, registry, examples)
        assert str(caught.value).startswith(
            "examples topic, partition 0, offset 139: 100 examples in a row cannot be learnt, so the learner stops; "
            "example m139: spec_id must be "
        )
        assert str(caught.value).endswith("learn it with the project of its time, or set another topic_prefix")
    assert [offset for offset, _ in set_aside(registry)] == list(range(40, 140))
    assert end(registry)[1] in ({}, {"0": 0})
    examples[139] = toy.example(139)
    learn_in_memory(toy, registry, examples)
    assert end(registry)[0] == 250 - 99


def test_a_step_that_cannot_be_taken_is_counted_never_replayed_and_followed_by_the_next(
    toy: Any,
    tmp_path: Path,
    equal: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The step of the examples 16 to 23 fails, in a whole run and in one that goes on within it."""
    take = Learner._step

    def one_fails(learner: Learner, *rows: Any) -> bool:
        if learner.examples != 24:
            return take(learner, *rows)
        bias = learner.tensors()["control/weights/head.rating.bias"]
        good = bias.copy()
        bias[:] = np.nan
        with np.errstate(all="ignore"):
            taken = take(learner, *rows)
        bias[:] = good
        return taken

    monkeypatch.setattr(Learner, "_step", one_fails)
    examples, before = [toy.example(n) for n in range(48)], REFUSED_STEPS._value.get()
    whole, halves = Registry(tmp_path / "whole"), Registry(tmp_path / "halves")
    learn_in_memory(toy, whole, examples)
    assert REFUSED_STEPS._value.get() - before == 1
    assert "the last of its examples is that of impression m23" in caplog.text
    for ends in (16, 19, 24, 48):
        learn_in_memory(toy, halves, examples[:ends])
    for registry in (whole, halves):
        assert end(registry)[:2] == (48, {"0": 48})
        assert len(end(registry)[2]["reservoir/label_BK"]) == 40
        assert all(np.isfinite(t).all() for n, t in end(registry)[2].items() if n.startswith(("student", "control")))
    equal(end(whole)[2], end(halves)[2])


def test_a_student_that_diverges_publishes_nothing_that_is_not_finite_and_does_not_end(
    toy: Any, tmp_path: Path
) -> None:
    registry = Registry(tmp_path)
    examples, before = [toy.example(n) for n in range(160)], REFUSED_STEPS._value.get()
    with np.errstate(all="ignore"):
        rates = {"learning_rate": 10.0, "embedding_learning_rate": 10.0}
        learn_in_memory(toy, registry, examples, every_seconds=1e-9, trunk=[8] * 6, cross_layers=4, **rates)
    assert REFUSED_STEPS._value.get() > before, "the student did not diverge: the test proves nothing"
    for version in registry.versions():
        tensors = registry.load_learner(version)[1]
        weights = [t for n, t in tensors.items() if n.startswith(("student/", "control/"))]
        assert all(np.isfinite(tensor).all() for tensor in weights)
        assert registry.load_model(version)[0].version == version


def test_a_copy_takes_what_a_learner_has_published(toy: Any, tmp_path: Path) -> None:
    registry = Registry(tmp_path / "versions")
    learn_in_memory(toy, registry, [toy.example(n) for n in range(8)])
    assert RemoteRegistry(f"memory://{tmp_path.name}/shop").push(registry) == registry.versions()
