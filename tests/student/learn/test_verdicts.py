"""What becomes of a verdict: which version serves, who holds it, what history, log and metric say, over kills too."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import prometheus_client
import pytest

from stream.events import Example
from student.evaluate.gate import Gate
from student.evaluate.served import ServedEvaluation
from student.evaluate.served_versions import ServedVersions
from student.learn.config import PublishConfig
from student.learn.learner import Learner
from student.learn.process.publishing import GATE, Publication, Publisher
from student.versions.gate import STOPS, GateConfig, GateRecord, SliceConfig, verdict_of
from student.versions.manifest import Manifest
from student.versions.names import CHAMPION, Reference
from student.versions.registry import Registry
from student.versions.version_folder import VersionError
from tests.student.conftest import Toy

QUICK: dict[str, Any] = {"after_examples": 100, "error_rate": 0.05}
FAULT_AT = 1_600


class NoTopic:
    def lag(self) -> int:
        return 0

    def commit(self, offsets: Any) -> None: ...


def example(toy: Any, number: int) -> Example:
    """Of users and items with tastes of their own; from `FAULT_AT` on the labels are inverted."""
    random = np.random.default_rng(number)
    user, item = int(random.integers(20)), int(random.integers(30))
    liked = random.random() < 1 / (1 + np.exp(-2.5 * (np.sin(user) + np.cos(3 * item))))
    rating = 1.0 + 4 * (liked != (number >= FAULT_AT))
    labels = {"like": float(rating > 3), "hidden": float(rating > 3), "rating": rating + 0.1 * random.standard_normal()}
    plain: Example = toy.example(number)
    features = [30, user, [0.0, 0.0], f"i{item}", 0.0]
    return plain.model_copy(update={"user_id": user, "item_id": f"i{item}", "features": features, "labels": labels})


class Stream:
    """A learner and its publisher, with a version after every 80 examples; `again` kills both and starts them anew."""

    def __init__(self, toy: Any, folder: Path, **config: Any) -> None:
        self.registry, self._toy, self._config = Registry(folder), toy, GateConfig(**{**QUICK, **config})
        self.again()

    def again(self) -> None:
        setup = self._toy.setup(student=self._toy.student.model_copy(update={"micro_batch": 80}))
        self.gate = Gate(setup.tasks, setup.spec, self._config, self.registry)
        served = ServedEvaluation(setup.tasks, ServedVersions(self.registry), self.gate)
        self.learner, offsets = Learner(setup, served=served), {}
        if latest := self.registry.latest():
            manifest, tensors, state = self.registry.load_learner(latest)
            self.learner.restore(tensors, state)
            offsets = {0: manifest.examples}
        publication = Publication(self.registry, PublishConfig(every_seconds=1e9, keep=3))
        self._publisher = Publisher(self.learner, served, offsets, publication)

    def learn_until(self, end: int, *, is_done: Callable[[], bool] = lambda: False, every: int = 80) -> None:
        while self.learner.examples < end and not is_done():
            numbers = range(self.learner.examples, min(end, self.learner.examples + every))
            self.learner.learn([example(self._toy, n) for n in numbers], np.full((len(numbers), 3), np.nan, np.float32))
            self._publisher.learnt({0: self.learner.examples})
            self._publisher.publish_if_new(NoTopic())

    @property
    def newest(self) -> Manifest:
        return self.registry.load_manifest(str(self.registry.latest()))

    @property
    def record(self) -> GateRecord:
        assert self.newest.gate is not None
        return self.newest.gate

    def stopped(self) -> bool:
        return self.record.stopped


def counted(verdict: str) -> float:
    return prometheus_client.REGISTRY.get_sample_value("graft_student_verdicts_total", {"verdict": verdict}) or 0.0


@pytest.fixture(scope="module")
def before_fault(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry whose learner has learnt all that is right, and whose gate has a champion."""
    folder = tmp_path_factory.mktemp("before")
    stream = Stream(Toy(), folder)
    stream.learn_until(FAULT_AT)
    assert stream.gate.champion is not None
    assert not stream.stopped()
    assert stream.registry.champion() == stream.registry.latest()
    return folder


@pytest.fixture
def stream(toy: Any, before_fault: Path, tmp_path: Path) -> Stream:
    shutil.copytree(before_fault, tmp_path / "versions")
    return Stream(toy, tmp_path / "versions")


def test_inverted_labels_bring_the_last_proven_version_back_and_that_is_said(
    stream: Stream, caplog: pytest.LogCaptureFixture
) -> None:
    before = {verdict: counted(verdict) for verdict in STOPS}
    stream.learn_until(FAULT_AT + 800, is_done=stream.stopped)
    record, newest = stream.record, stream.newest
    assert record.stopped
    assert newest.examples - FAULT_AT <= 560
    verdict, decisive = verdict_of(record)
    assert verdict == record.verdict == "hold"
    assert decisive is not None
    champion = record.proven
    assert stream.registry.champion() == champion != newest.version
    held = stream.registry.names.held()
    assert held is not None
    assert (held.by, held.to, held.back) == (GATE, champion, True)
    assert held.numbers["examples"] == decisive.examples
    for word in ("hold: ", decisive.metric, "slice whole", f"candidate {record.candidate}", f"champion {champion}"):
        assert word in held.why
    assert f"{champion} serves and is held, by the gate; {held.why}; 'graft student hold --end' lets" in caplog.text
    assert {v: counted(v) - before[v] for v in STOPS} == {"hold": 1, "reject": 0, "roll_back": 0}
    assert prometheus_client.REGISTRY.get_sample_value("graft_student_champion_held") == 1
    # What is published from then on is the candidate and no more, over a restart too, with the same record.
    stream.again()
    stream.learn_until(stream.learner.examples + 240)
    assert stream.registry.champion() == champion
    assert stream.record == record
    assert counted("hold") - before["hold"] == 1


def test_a_version_that_may_be_promoted_stays_however_many_come_after_it(stream: Stream) -> None:
    stream.learn_until(FAULT_AT + 320, every=16)
    behind = stream.newest.examples - stream.registry.load_manifest(str(stream.record.candidate)).examples
    assert behind > 11 * 16, "more than are kept anyhow"
    assert all(stream.registry.load_model(version) for version in stream.gate.kept)


def test_after_a_release_the_learner_serves_again_and_the_gate_starts_anew(stream: Stream) -> None:
    stream.learn_until(FAULT_AT + 800, is_done=stream.stopped)
    champion = stream.registry.champion()
    stream.registry.point(CHAMPION, Reference(str(champion)), by="ann", why="repaired", hold=False)
    stream.again()
    stream.learn_until(stream.learner.examples + 80)
    assert stream.registry.champion() == stream.registry.latest()
    assert not stream.record.stopped
    assert stream.record.comparisons == []


def test_a_person_who_holds_the_champion_goes_before_the_gate(stream: Stream, caplog: pytest.LogCaptureFixture) -> None:
    version = str(stream.registry.versions()[-1])
    stream.registry.point(CHAMPION, Reference(version), by="ann", why="sale", hold=True)
    stream.learn_until(FAULT_AT + 480, is_done=lambda: stream.record.verdict in STOPS)
    stream.learn_until(stream.learner.examples + 80)
    held = stream.registry.names.held()
    assert held is not None
    assert held.by == "ann"
    assert stream.registry.champion() == version
    assert (stream.record.verdict, stream.record.stopped) == ("hold", False)
    assert caplog.text.count(f"the gate would hold {stream.record.proven}, but ann holds {version}") == 1
    # What speaks against the newest counts as soon as the person has let go.
    stream.registry.point(CHAMPION, Reference(version), by="ann", why="over", hold=False)
    stream.learn_until(stream.learner.examples + 80)
    held = stream.registry.names.held()
    assert held is not None
    assert held.by == GATE
    assert stream.record.stopped


def test_a_person_may_promote_what_they_want_while_the_gate_holds(stream: Stream) -> None:
    stream.learn_until(FAULT_AT + 800, is_done=stream.stopped)
    version = str(stream.registry.latest())
    stream.registry.point(CHAMPION, Reference(version), by="ann", why="these are the true labels", hold=True)
    stream.again()
    stream.learn_until(stream.learner.examples + 80)
    assert stream.registry.champion() == version
    stream.registry.point(CHAMPION, Reference(version), by="ann", why="as I said", hold=False)
    stream.learn_until(stream.learner.examples + 80)
    assert stream.registry.champion() == stream.registry.latest()
    assert not stream.record.stopped


def test_a_kill_between_the_hold_and_the_version_that_tells_of_it_leaves_the_hold(
    stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish = Registry.publish

    def killed(*arguments: Any, **named: Any) -> Manifest:
        if stream.gate.stopped:
            raise KeyboardInterrupt
        return publish(*arguments, **named)

    monkeypatch.setattr(Registry, "publish", killed)
    with pytest.raises(KeyboardInterrupt):
        stream.learn_until(FAULT_AT + 800)
    monkeypatch.undo()
    champion, moves = stream.registry.champion(), len(stream.registry.names.history())
    assert not stream.record.stopped
    stream.again()
    stream.learn_until(stream.learner.examples + 160)
    assert stream.registry.champion() == champion != stream.registry.latest()
    assert len(stream.registry.names.history()) == moves


def test_a_proven_version_that_was_removed_by_hand_leaves_the_champion_where_it_is(
    stream: Stream, caplog: pytest.LogCaptureFixture
) -> None:
    """The gate has it in memory, and judges on."""
    proven = str(stream.gate.champion)
    stream.learn_until(FAULT_AT + 80)
    shutil.rmtree(stream.registry.folder / proven)
    stream.learn_until(FAULT_AT + 800, is_done=stream.stopped)
    assert stream.record.stopped
    serving = str(stream.registry.champion())
    stream.registry.check_serves(Reference(serving))
    assert serving != proven
    assert "the gate cannot go back to the last version that was proven" in caplog.text
    # A restart has nothing to compare with any more, but the hold stays.
    stream.again()
    stream.learn_until(stream.learner.examples + 80)
    assert stream.registry.champion() == serving


def test_the_proven_version_is_not_pruned(stream: Stream) -> None:
    proven = str(stream.gate.champion)
    stream.learn_until(FAULT_AT + 80)
    assert stream.gate.champion == proven
    assert proven in stream.registry.versions()


@pytest.mark.parametrize("cuts", [[80, 800, 1_360]])
def test_a_gate_that_was_killed_goes_on_bit_for_bit(
    toy: Any, before_fault: Path, tmp_path: Path, cuts: Sequence[int]
) -> None:
    stream = Stream(toy, tmp_path)
    for end in (*cuts, FAULT_AT):
        stream.learn_until(end)
        stream.again()
    whole = Registry(before_fault)
    newest = str(whole.latest())
    assert stream.record == whole.load_manifest(newest).gate
    left, right = (registry.load_served_metrics(newest) for registry in (stream.registry, whole))
    assert {name: tensor.tobytes() for name, tensor in left.items()} == {n: t.tobytes() for n, t in right.items()}


def test_with_policy_proven_the_newest_does_not_serve_before_it_is_proven(
    toy: Any, before_fault: Path, tmp_path: Path
) -> None:
    stream = Stream(toy, tmp_path, policy="proven", bound=0.05)
    served, proven = set(), set()
    while stream.learner.examples < FAULT_AT:
        stream.learn_until(stream.learner.examples + 80)
        if stream.gate.champion is None:
            assert stream.registry.champion() == stream.registry.latest()
        else:
            served.add(stream.registry.champion())
        proven |= {stream.record.proven} if stream.record.verdict == "promote" else set()
    assert proven
    assert stream.registry.champion() == stream.record.proven != stream.registry.latest()
    moves = [move for move in stream.registry.names.history() if move.by == GATE]
    assert [move.to for move in moves] == sorted(str(one) for one in proven)
    assert {move.why for move in moves} == {"proven"}


def test_the_gate_moves_no_bit_of_what_is_learnt(toy: Any, before_fault: Path, equal: Callable[..., None]) -> None:
    setup = toy.setup(student=toy.student.model_copy(update={"micro_batch": 80}))
    alone = Learner(setup)
    examples = [example(toy, n) for n in range(FAULT_AT)]
    alone.learn(examples, np.full((FAULT_AT, 3), np.nan, np.float32))
    registry = Registry(before_fault)
    _, tensors, _ = registry.load_learner(str(registry.latest()))
    equal(alone.tensors(), tensors)


def test_a_version_of_before_the_gate_is_gone_on_from(stream: Stream) -> None:
    version = str(stream.registry.latest())
    path = stream.registry.folder / version / "manifest.json"
    manifest = stream.newest.model_copy(update={"gate": None})
    path.write_text(manifest.model_dump_json(exclude={"gate"}))
    assert stream.newest.gate is None
    stream.again()
    stream.learn_until(stream.learner.examples + 80)
    assert stream.record.comparisons == []
    assert stream.registry.champion() == stream.registry.latest()


def test_weights_that_are_not_finite_never_serve(stream: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    champion = stream.registry.champion()
    tensors = {
        name: np.full_like(t, np.nan) for name, t in stream.learner.served_tensors().items() if t.dtype.kind == "f"
    }
    monkeypatch.setattr(Learner, "served_tensors", lambda _: tensors)
    with pytest.raises(VersionError, match="must be finite"):
        stream.learn_until(stream.learner.examples + 80)
    assert stream.registry.champion() == stream.registry.latest() == champion


def test_other_slices_than_before_a_restart_start_the_gate_anew(stream: Stream) -> None:
    stream._config = GateConfig(**QUICK, slices=[SliceConfig(column="user_id", value=7)])
    stream.again()
    assert stream.gate.champion is None
    stream.learn_until(stream.learner.examples + 80)
    assert stream.registry.champion() == stream.registry.latest()
