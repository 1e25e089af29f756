"""What the gate makes of fresh examples: each verdict, each way in which there is none, and a restart."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray

from features.spec import Feature, FeatureBatch, FeatureSpec, hash_category
from runtime.errors import ConfigurationError
from stream.tasks import TaskSpec
from student.evaluate.gate import WINDOW, Gate, _Champion
from student.evaluate.served_versions import Served
from student.versions.gate import STOPS, GateConfig, GateRecord, SliceConfig, verdict_of
from student.versions.registry import Registry
from tests.specs import spec_of

LIKE = TaskSpec(name="like", kind="binary", window_seconds=60)
RATING = TaskSpec(name="rating", kind="regression", window_seconds=60)
SPEC = FeatureSpec(
    **{
        **dict(spec_of()),
        "features": (
            Feature(name="said", source="user", role="dense", dtype="float", default=0.0),
            Feature(name="device", source="context", role="categorical", dtype="str", default=None),
        ),
    }
)


class Echo:
    """A champion that says of each example what stands in its first column."""

    def __init__(self, task: TaskSpec) -> None:
        self._task = task

    def score(self, batch: FeatureBatch) -> Mapping[str, NDArray[np.float32]]:
        said_B = batch.dense_BD[:, 0]
        return {self._task.name: 1 / (1 + np.exp(-said_B)) if self._task.kind == "binary" else said_B}


class Judged(Gate):
    """A gate whose champions echo; `goes` are versions that are not there any more."""

    goes: tuple[str, ...] = ()

    def _opened(self, version: str) -> Any:
        if version in self.goes:
            return super()._opened(version)
        return _Champion(version, int(version[1:]), cast("Any", Echo(self._tasks[0])))


class Stream:
    """Examples of which the truth is known: the champion says it, and the candidate with an error on top."""

    def __init__(self, folder: Path, task: TaskSpec = LIKE, **config: Any) -> None:
        self._folder, self._task, self._config = folder, task, GateConfig(**config)
        self.gate = self.new_gate()
        self._random = np.random.default_rng(5)
        self.learnt = 1_000

    def new_gate(self, **config: Any) -> Judged:
        changed = self._config.model_copy(update=config)
        return Judged([self._task], SPEC, changed, Registry(self._folder))

    def tell(
        self,
        count: int,
        *,
        error: float = 0.0,
        factor: float = 1.0,
        invert: bool = False,
        one_class: bool = False,
        wrong_on: str | None = None,
        devices: tuple[str, ...] = ("phone", "tv"),
        gates: tuple[Gate, ...] = (),
        users: int = 2**63,
        value: float | None = None,
        one_negative_of: int = 1,
        weigh: bool = True,
        champion_error: float = 0.0,
        leak: bool = False,
        until: tuple[str, ...] = STOPS,
    ) -> GateRecord:
        """Tell of examples, 200 at a time with a version after each; the first verdict of `until`, or the last.

        The candidate says `factor` times the truth plus noise of size `error`, or `value` of each. Of the negatives one
        in `one_negative_of` is told, which stands for so many if they `weigh`. The champion says the truth plus noise
        of size `champion_error`. With a `leak` the candidate says the label itself.
        """
        record = self.gate.judge()
        for first in range(0, count, 200):
            size = min(200, count - first)
            truth_B = self._random.normal(0, 1.5, size)
            noise_B = error * self._random.normal(size=size)
            device_B = self._random.choice(devices, size)
            if wrong_on:
                noise_B = np.where(device_B == wrong_on, noise_B, 0)
            said_B = np.full(size, value) if value is not None else factor * truth_B + noise_B
            label_B = truth_B + self._random.normal(size=size)
            if self._task.kind == "binary":
                label_B = (self._random.random(size) < 1 / (1 + np.exp(-truth_B))) != invert
            if one_class:
                label_B = np.zeros(size)
            if leak:
                said_B = label_B if self._task.kind == "regression" else np.where(label_B, 5.0, -5.0)
            by_champion_B = truth_B + champion_error * self._random.normal(size=size) if champion_error else truth_B
            user_B = self._random.integers(0, users, size).astype(np.uint64)
            hashes = np.array([[hash_category("device", str(device))] for device in device_B], np.uint64)
            self.learnt += 200
            value_BKA = np.repeat(said_B[:, None, None], 2, axis=2).astype(np.float32)
            served = Served(value_BKA, np.full(size, float(self.learnt)), [f"v{self.learnt:06d}"])
            for gate in gates or (self.gate,):
                features = FeatureBatch(by_champion_B[:, None].astype(np.float32), hashes)
                kept_B = (label_B > 0) | (np.arange(size) % one_negative_of == 0)
                weight_B = np.where((label_B > 0) | (not weigh), 1, one_negative_of).astype(np.float32)
                seen = FeatureBatch(*(column[kept_B] for column in features))
                said = Served(served.value_BKA[kept_B], served.learnt_B[kept_B], served.asked)
                columns = label_B[:, None].astype(np.float32), user_B, weight_B
                gate.update(seen, *(column[kept_B] for column in columns), said)
                record = gate.judge()
            if record.verdict in until:
                break
        return record


@pytest.fixture
def stream(tmp_path: Path) -> Stream:
    return Stream(tmp_path)


def started(stream: Stream) -> Stream:
    """With a champion, and some examples after it."""
    while stream.gate.champion is None:
        assert stream.tell(200).verdict == "open"
    return stream


def decisive(record: GateRecord) -> tuple[str, str]:
    verdict, one = verdict_of(record)
    assert verdict == record.verdict
    assert one is not None
    assert one.evidence >= record.enough_evidence
    return one.metric, one.slice


def test_the_first_champion_is_a_version_that_was_shown_to_say_more_than_the_mean_label(stream: Stream) -> None:
    record = stream.tell(2_000, value=0.1)
    assert (record.verdict, record.proven, record.comparisons) == ("open", None, [])
    record = stream.tell(2_000)
    assert record.proven == stream.gate.champion is not None


def test_a_version_that_has_learnt_too_few_examples_is_not_judged(tmp_path: Path) -> None:
    stream = Stream(tmp_path, after_examples=5_000)
    assert stream.tell(3_000).proven is None
    assert stream.learnt < 5_000
    assert stream.tell(3_000).proven is not None


def test_three_examples_are_no_verdict(stream: Stream) -> None:
    started(stream)
    for _ in range(2):
        assert stream.tell(3, error=9.0).verdict == "open"


def test_a_candidate_as_good_as_the_champion_is_promoted_and_takes_its_place(stream: Stream) -> None:
    started(stream)
    first = stream.gate.champion
    record = stream.tell(20_000, error=0.05, until=("promote", *STOPS))
    assert record.verdict == "promote"
    assert (record.champion, record.proven) == (first, record.candidate)
    assert stream.gate.champion == record.candidate
    (loss,) = [one for one in record.comparisons if one.metric == "loss"]
    assert loss.interval is not None
    assert -0.2 < loss.interval[0] < loss.interval[1] < loss.bound == 0.01
    assert loss.examples > 500
    examples = [one.examples for one in stream.tell(400).comparisons]
    assert examples == [WINDOW] * len(examples), "what was shown of one champion says nothing of the next"


@pytest.mark.parametrize("champion_error", [0.6, 0.8, 0.9])
def test_what_is_learnt_beyond_a_young_champion_is_promoted_before_it_adds_up_to_a_gain_too_large(
    tmp_path: Path, champion_error: float
) -> None:
    """It must not take proof that the gain is below its bound: near the bound there is none, and it only grows."""
    stream = started(Stream(tmp_path, RATING))
    record = stream.tell(20_000, champion_error=champion_error, until=("promote", *STOPS))
    (loss,) = [one for one in record.comparisons if one.metric == "loss"]
    assert record.verdict == "promote"
    assert loss.mean is not None
    assert loss.mean < -0.08
    assert loss.examples < 2_000


@pytest.mark.parametrize("task", [LIKE, RATING], ids=["like", "rating"])
@pytest.mark.parametrize("before", [0, 600, 2_000, 10_000])
def test_a_column_that_has_the_label_in_it_is_held_and_never_proven(
    tmp_path: Path, task: TaskSpec, before: int
) -> None:
    stream = started(Stream(tmp_path, task))
    stream.tell(before, error=0.1)
    learnt = stream.learnt
    record = stream.tell(3_000, leak=True)
    assert record.verdict == "hold"
    assert decisive(record) == ("gain", "whole")
    assert int(str(record.proven)[1:]) <= learnt
    assert stream.learnt - learnt <= 2_000


def test_what_is_doubtful_or_proven_already_is_not_promoted(stream: Stream) -> None:
    record = started(stream).tell(20_000, error=0.05, until=("promote", *STOPS))
    assert verdict_of(record) == ("promote", None)
    gain = next(one for one in record.comparisons if one.metric == "gain")
    others = [one for one in record.comparisons if one is not gain]
    rising, above = (gain.model_copy(update=change) for change in ({"is_rising": True}, {"evidence": 0.0}))
    for change in (
        {"candidate": None},
        {"candidate": record.champion},
        {"comparisons": [*others, rising]},
        {"comparisons": [*others, above]},
    ):
        assert verdict_of(record.model_copy(update=change)) == ("open", None)


def test_a_candidate_that_is_worse_is_rolled_back(stream: Stream) -> None:
    started(stream)
    record = stream.tell(4_000, error=0.8)
    assert record.verdict == "roll_back"
    assert decisive(record) == ("loss", "whole")
    assert record.proven == record.champion != record.candidate


def test_one_user_alone_stops_nothing_soon(stream: Stream) -> None:
    started(stream)
    record = stream.tell(2_000, error=2.0, users=1)
    assert record.verdict == "open"
    loss = record.comparisons[0]
    assert loss.interval is not None
    assert 0 < loss.examples < 2_000 / WINDOW * 5
    before = stream.learnt
    assert stream.tell(2_000, error=2.0).verdict == "roll_back"
    assert stream.learnt - before <= 1_000


def test_values_that_are_not_finite_are_the_worst_there_are(stream: Stream) -> None:
    started(stream)
    record = stream.tell(1_000, value=float("nan"))
    assert record.verdict == "roll_back"
    assert stream.learnt < 3_500


def test_inverted_labels_are_held_while_champion_and_candidate_fail_alike(stream: Stream) -> None:
    started(stream)
    stream.tell(3_000)
    before = stream.learnt
    record = stream.tell(2_000, invert=True)
    assert record.verdict == "hold"
    assert "lost_gain" in decisive(record)[0]
    assert stream.learnt - before <= 600


def test_inverted_labels_that_the_candidate_has_learnt_are_a_gain_too_large(tmp_path: Path) -> None:
    stream = started(Stream(tmp_path))
    record = stream.tell(2_000, invert=True, factor=-1.0)
    assert record.verdict == "hold"
    assert decisive(record)[0] in ("gain", "champion_lost_gain")


def test_a_candidate_far_from_calibrated_is_rejected(tmp_path: Path) -> None:
    stream = started(Stream(tmp_path, bound=1.0, largest_calibration=1.2, lost_share=0.99))
    record = stream.tell(4_000, value=2.0)
    assert record.verdict == "reject"
    assert decisive(record) == ("overprediction", "whole")


def test_a_candidate_that_is_worse_on_a_declared_slice_alone_is_rolled_back(tmp_path: Path) -> None:
    tv = SliceConfig(column="device", value="tv")
    stream = started(Stream(tmp_path, slices=[tv], bound=0.5))
    record = stream.tell(4_000, error=1.5, wrong_on="tv")
    assert record.verdict == "roll_back"
    assert decisive(record) == ("loss", "device=tv")


def test_a_declared_slice_without_examples_is_not_passed(tmp_path: Path) -> None:
    stream = started(Stream(tmp_path, slices=[SliceConfig(column="device", value="watch")], bound=0.5))
    record = stream.tell(4_000)
    assert record.verdict == "open"
    whole, watch = (one for one in record.comparisons if one.metric == "loss")
    assert whole.interval is not None
    assert whole.interval[1] < whole.bound
    assert (watch.slice, watch.examples, watch.interval) == ("device=watch", 0, None)
    assert stream.tell(4_000, devices=("phone", "watch"), until=("promote", *STOPS)).verdict == "promote"


def test_a_slice_of_a_column_that_is_no_category_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigurationError, match=r"gate.slices.0.column: must be one of features.categorical, got 'dev"
    ):
        Stream(tmp_path, slices=[SliceConfig(column="devise", value="tv")])


def test_labels_of_one_class_are_never_judged_and_stop_nothing(stream: Stream) -> None:
    record = stream.tell(20_000, one_class=True, value=-6.0)
    assert (record.verdict, record.comparisons) == ("open", [])


def test_a_stream_without_a_fault_is_not_stopped(tmp_path: Path) -> None:
    stream = started(Stream(tmp_path))
    assert stream.tell(40_000, error=0.1).verdict in ("open", "promote")


def test_a_regression_is_judged_in_variances_of_its_labels(tmp_path: Path) -> None:
    stream = started(Stream(tmp_path, RATING))
    assert stream.tell(3_000, error=0.05).verdict in ("open", "promote")
    record = stream.tell(4_000, error=1.0)
    assert record.verdict == "roll_back"
    (loss,) = [one for one in record.comparisons if one.metric == "loss"]
    assert {one.metric for one in record.comparisons} == {"loss", "gain", "lost_gain", "champion_lost_gain"}
    assert loss.task == "rating"


def test_a_record_gives_its_verdict_again_after_it_was_written_and_read(stream: Stream) -> None:
    started(stream)
    for record in (stream.tell(400), stream.tell(4_000, error=0.8)):
        read = GateRecord.model_validate_json(record.model_dump_json())
        assert read == record
        assert verdict_of(read)[0] == record.verdict


def test_a_restored_gate_goes_on_bit_for_bit(stream: Stream) -> None:
    started(stream)
    record = stream.tell(1_000, error=0.1)
    resumed = stream.new_gate()
    resumed.restore({name: tensor.copy() for name, tensor in stream.gate.tensors().items()}, record)
    assert resumed.champion == stream.gate.champion
    stream.tell(2_000, error=0.1, gates=(stream.gate, resumed))
    left, right = stream.gate.tensors(), resumed.tensors()
    assert {n: t.tobytes() for n, t in left.items()} == {n: t.tobytes() for n, t in right.items()}
    assert stream.gate.judge() == resumed.judge()


@pytest.mark.parametrize(
    "changed", [{"slices": [SliceConfig(column="device", value="phone")]}, {"slices": []}, {"largest_gain": 0.5}]
)
def test_sums_of_other_settings_are_not_gone_on_from(tmp_path: Path, changed: dict[str, Any]) -> None:
    stream = started(Stream(tmp_path, slices=[SliceConfig(column="device", value="tv")]))
    other = stream.new_gate(**changed)
    other.restore(stream.gate.tensors(), stream.gate.judge())
    assert other.champion is None
    assert not other.tensors()["gate.gain"].any()


def test_a_gate_without_a_record_starts_anew(stream: Stream) -> None:
    stream.gate.restore({}, None)
    assert stream.gate.champion is None


def test_a_champion_whose_folder_is_gone_lets_the_gate_start_anew(
    stream: Stream, caplog: pytest.LogCaptureFixture
) -> None:
    started(stream)
    record = stream.gate.judge()
    resumed = stream.new_gate()
    resumed.goes = (str(record.proven),)
    resumed.restore(stream.gate.tensors(), record)
    assert resumed.champion is None
    assert not resumed.tensors()["gate.sums"].any()
    assert f"the gate does without a version that it has to compare with: version {record.proven} is not in" in (
        caplog.text
    )


def test_a_stopped_gate_takes_nothing_in(stream: Stream) -> None:
    started(stream)
    stream.gate.stopped = True
    before = {name: tensor.tobytes() for name, tensor in stream.gate.tensors().items()}
    stream.tell(600, error=3.0)
    assert {name: tensor.tobytes() for name, tensor in stream.gate.tensors().items()} == before


def test_a_sound_version_goes_on_where_a_share_of_the_negatives_stands_for_all(stream: Stream) -> None:
    """Without weights its probabilities look too low: the labels that are left are positives five times as often."""
    started(stream)
    assert stream.tell(20_000, one_negative_of=5).verdict not in STOPS
    assert decisive(stream.tell(20_000, one_negative_of=5, weigh=False))[0] in ("underprediction", "lost_gain")


def test_a_version_that_is_worse_is_stopped_where_a_share_of_the_negatives_stands_for_all(stream: Stream) -> None:
    started(stream)
    record = stream.tell(20_000, error=2.0, one_negative_of=5)
    assert decisive(record)[0] in ("loss", "overprediction")


def test_a_gate_of_an_earlier_release_goes_on(stream: Stream) -> None:
    """It has saved nothing of what examples stand for: each for itself."""
    started(stream)
    record = stream.tell(600)
    saved = {name: t.copy() for name, t in stream.gate.tensors().items() if name not in ("gate.heaviest", "gate.parts")}
    resumed = stream.new_gate()
    resumed.restore(saved, record)
    stream.tell(600, gates=(stream.gate, resumed))
    assert resumed.judge() == stream.gate.judge()
