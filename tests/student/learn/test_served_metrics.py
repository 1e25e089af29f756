"""The learner's loop with versions all the way: what the served arms are judged on, and what they leave as it was."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from stream.events import Example
from student.evaluate.metrics import exact_auc
from student.evaluate.served_versions import MOST_KEPT
from student.learn.learner import Learner
from student.versions.manifest import Manifest
from student.versions.numpy_model import NumpyStudent
from student.versions.registry import Registry
from tests.student.learn.learning_in_memory import learn_in_memory

WINDOW_MS = 60_000
AT_ONCE = 1e-9
"""Seconds: a version after every step."""


class Quick:
    """The toy pair with longer pauses between its impressions: a step of 8 takes 40 s, a window 60 s."""

    def __init__(self, toy: Any) -> None:
        self._toy = toy

    def __getattr__(self, name: str) -> Any:
        return getattr(self._toy, name)

    def example(self, number: int) -> Example:
        example: Example = self._toy.example(number)
        return example.model_copy(update={"event_time_ms": 1_000_000 + 5_000 * number})


@pytest.fixture
def pair(toy: Any) -> Quick:
    return Quick(toy)


def learnt(pair: Quick, folder: Path, examples: Sequence[Example], **changes: Any) -> Registry:
    registry = Registry(folder)
    learn_in_memory(pair, registry, examples, every_seconds=AT_ONCE, **changes)
    return registry


def served_values(registry: Registry) -> NDArray[np.float32]:
    """Of the examples judged [N, K, 2]; fewer than the recent window holds."""
    newest = str(registry.latest())
    count = registry.load_manifest(newest).metrics["like"]["student"].count
    values: NDArray[np.float32] = registry.load_served_metrics(newest)["value"][:count]
    return values


def manifests(registry: Registry) -> list[Manifest]:
    return [registry.load_manifest(version) for version in registry.versions()]


def test_each_example_is_judged_on_the_newest_version_of_all_that_had_learnt_closed_examples_alone(
    pair: Quick, tmp_path: Path
) -> None:
    examples = [pair.example(n) for n in range(160)]
    registry = learnt(pair, tmp_path, examples)
    served_NKA, said, ages = served_values(registry), manifests(registry), []
    for n, example in enumerate(examples[: len(served_NKA)]):
        closed = sum(one.event_time_ms + WINDOW_MS < example.event_time_ms for one in examples)
        of = max((m for m in said if m.examples <= closed), key=lambda m: m.examples)
        scores = NumpyStudent(*registry.load_model(of.version)).score(
            pair.spec.encode(pair.spec.columns_of([example.features]))
        )
        assert scores["rating"][0] == pytest.approx(served_NKA[n, 2, 0], abs=1e-5)
        assert scores["like"][0] == pytest.approx(1 / (1 + np.exp(-served_NKA[n, 0, 0])), abs=1e-6)
        ages.append(n - of.examples)
    like = said[-1].metrics["like"]
    assert len(ages) == like["student"].count == like["served_student"].count == 160
    assert like["served_student"].age_examples == pytest.approx(np.mean(ages))
    assert np.mean(ages) > WINDOW_MS / 5_000 - 1
    label_N = np.array([example.labels["like"] for example in examples], np.float32)
    recent = said[-1].slices["recent"]["like"]
    assert recent["served_student"].auc == pytest.approx(exact_auc(label_N, served_NKA[:, 0, 0]))
    assert recent["served_control"].auc == pytest.approx(exact_auc(label_N, served_NKA[:, 0, 1]))
    assert recent["student"].auc != recent["served_student"].auc


def test_labels_that_were_not_known_when_an_impression_came_change_nothing_of_what_was_served(
    pair: Quick, tmp_path: Path
) -> None:
    examples = [pair.example(n) for n in range(96)]
    at = examples[50].event_time_ms
    others = [
        e.model_copy(update={"labels": {"like": 1.0, "hidden": 1.0, "rating": 5.0}})
        if e.event_time_ms + WINDOW_MS >= at
        else e
        for e in examples
    ]
    told = [served_values(learnt(pair, tmp_path / name, log)) for name, log in (("a", examples), ("b", others))]
    assert told[0][:51].tobytes() == told[1][:51].tobytes()
    assert not np.array_equal(told[0][-1], told[1][-1]), "no label matters at all: nothing is shown"


def test_served_metrics_move_no_bit_of_what_is_learnt(pair: Quick, tmp_path: Path, equal: Callable[..., None]) -> None:
    examples = [pair.example(n) for n in range(100)]
    registry = learnt(pair, tmp_path, examples)
    _, tensors, state = registry.load_learner(str(registry.latest()))
    alone = Learner(pair.setup())
    alone.learn(examples, np.full((100, 3), np.nan, np.float32))
    equal(alone.tensors(), tensors)
    assert alone.state() == state


def test_a_learner_that_goes_on_has_the_served_metrics_of_one_that_never_stopped(
    pair: Quick, tmp_path: Path, equal: Callable[..., None]
) -> None:
    examples = [pair.example(n) for n in range(160)]
    whole = learnt(pair, tmp_path / "whole", examples, keep=2)
    stopped = tmp_path / "stopped"
    for end in (4, 64, 104, 160):
        learnt(pair, stopped, examples[:end], keep=2)
    left, right = (manifests(registry)[-1] for registry in (whole, Registry(stopped)))
    assert left.served_by == right.served_by
    assert left.metrics == right.metrics
    assert left.slices == right.slices
    equal(*(registry.load_served_metrics(left.version) for registry in (whole, Registry(stopped))))


def test_versions_that_later_examples_need_are_not_pruned_and_all_others_are(pair: Quick, tmp_path: Path) -> None:
    registry = learnt(pair, tmp_path, [pair.example(n) for n in range(160)], keep=2)
    newest = manifests(registry)[-1]
    gone = set(newest.served_by) - set(registry.versions())
    assert len(gone) == 1, "the newest version has taken the place of one"
    assert len(registry.versions()) <= MOST_KEPT + 2
    assert newest.learnt_until_ms == pair.example(159).event_time_ms + WINDOW_MS
    oldest = registry.load_manifest(registry.versions()[0])
    assert oldest.learnt_until_ms < pair.example(160).event_time_ms


def test_a_version_that_was_published_before_any_example_serves_the_first_ones(pair: Quick, tmp_path: Path) -> None:
    registry = learnt(pair, tmp_path, [pair.example(n) for n in range(8)])
    served_NKA = served_values(registry)
    first = registry.load_manifest("v000001")
    assert (first.examples, first.learnt_until_ms, first.served_by) == (0, 0, [])
    student = NumpyStudent(*registry.load_model("v000001"), with_control=True)
    features = pair.spec.encode(pair.spec.columns_of([pair.example(n).features for n in range(8)]))
    assert np.allclose(student.values(features), served_NKA)
    assert manifests(registry)[-1].metrics["like"]["served_student"].age_examples == np.mean(range(8))
