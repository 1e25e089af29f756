"""The example log that a study reads, whole in memory, thinned to a share of its users, and the scores of its parts.

Shapes: B rows, N examples, K tasks, A arms, T teacher tasks.
"""

import hashlib
import json
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.spec import EntityId, Feature, FeatureSpec, Value
from lab.study.log.memory_store import digest_of
from runtime.errors import InvalidInputError
from stream.events import Example
from stream.log.archive import Archive
from stream.log.example_log import ExampleLog
from stream.log.examples import ExampleRecord
from stream.tasks import TaskSpec
from student.evaluate.metrics import exact_auc, losses
from student.evaluate.newness import NEW_EXAMPLES

Scores = dict[str, dict[str, float]]
"""Task -> arm -> AUC of a binary task, RMSE of a regression; what is undefined is left out."""


NEW_ITEMS, NEW_USERS = "new items", "new users"
"""The examples of a slice whose item, or whose user, had few examples before."""


EARLY_EXAMPLES = 500
"""In the first examples a wrong teacher harms most: the student has few labels that contradict it."""
EARLY = f"first {EARLY_EXAMPLES}"
"""The slice of these examples."""


def window_names(windows: Sequence[int], count: int) -> list[str]:
    """The names of the windows of a log of so many examples: ``0-500``; the last one, ``500-end``, holds its tail."""
    inner = [f"{low}-{high}" for low, high in pairwise(windows) if low < count]
    return [*inner, f"{windows[-1]}-end"] if windows[-1] < count else inner


def slices_of(new: Mapping[str, NDArray[np.bool_]], windows: Sequence[int]) -> dict[str, NDArray[np.bool_]]:
    """The members of each slice: all, the first 500, windows; each with new ids, too.

    `new`: by name the examples with new ids [N].
    """
    count = len(next(iter(new.values())))
    row_N = np.arange(count)
    whole = {"all": row_N >= 0}
    if count >= EARLY_EXAMPLES:
        whole[EARLY] = row_N < EARLY_EXAMPLES
    bounds = [*windows, count] if windows[-1] < count else windows
    for name, (low, high) in zip(window_names(windows, count), pairwise(bounds), strict=False):
        whole[name] = (row_N >= low) & (row_N < high)
    return whole | {
        f"{name}, {part}": member_N & new_N for part, new_N in new.items() for name, member_N in whole.items()
    }


def scores_of(
    tasks: Sequence[TaskSpec],
    arms: Sequence[str],
    label_NK: NDArray[np.float32],
    value_NKA: NDArray[np.float32],
    weight_N: NDArray[np.float32] | None = None,
) -> Scores:
    """One score per task and arm, over the rows that have label and value; `weight_N`: as how many rows each counts."""
    weight_N = np.ones(len(label_NK), np.float32) if weight_N is None else weight_N
    scores: Scores = {task.name: {} for task in tasks}
    for k, task in enumerate(tasks):
        for a, arm in enumerate(arms):
            value = _score(task, label_NK[:, k], value_NKA[:, k, a], weight_N)
            if value is not None:
                scores[task.name][arm] = value
    return scores


def _score(
    task: TaskSpec, label_N: NDArray[np.float32], value_N: NDArray[np.float32], weight_N: NDArray[np.float32]
) -> float | None:
    present_N = ~np.isnan(label_N) & ~np.isnan(value_N)
    label_B, value_B, weight_B = label_N[present_N], value_N[present_N], weight_N[present_N]
    if task.kind == "binary":
        return exact_auc(label_B, value_B, weight_B)
    if not len(label_B):
        return None
    return float(np.average(losses("regression", label_B, value_B), weights=weight_B) ** 0.5)


def of_slices(
    slices: Mapping[str, NDArray[np.bool_]],
    tasks: Sequence[TaskSpec],
    arms: Sequence[str],
    label_NK: NDArray[np.float32],
    value_NKA: NDArray[np.float32],
    weight_N: NDArray[np.float32] | None = None,
) -> dict[str, Scores]:
    """The scores of every slice."""
    weight_N = np.ones(len(label_NK), np.float32) if weight_N is None else weight_N
    return {name: scores_of(tasks, arms, label_NK[m], value_NKA[m], weight_N[m]) for name, m in slices.items()}


class StudyLog(NamedTuple):
    """Records in the order in which every learner learns them, and the spec that reads their features."""

    spec: FeatureSpec
    records: Sequence[ExampleRecord]

    @property
    def examples(self) -> list[Example]:
        """The records' examples, N."""
        return [record.example for record in self.records]

    @property
    def key(self) -> str:
        """A digest of its content: the spec, and every example with its partition and offset."""
        records = (f"{record.partition} {record.offset} {record.example.model_dump_json()}" for record in self.records)
        return digest_of(chain([self.spec.spec_id], records))

    @property
    def event_times_ms(self) -> list[int]:
        """The event time of each example, N."""
        return [example.event_time_ms for example in self.examples]

    @property
    def weights(self) -> NDArray[np.float32]:
        """As how many impressions each example counts [N]: see `[sampling]`."""
        return np.array([example.weight for example in self.examples], np.float32)

    @property
    def drawn(self) -> int:
        """How many of the examples are drawn negatives, which nobody was shown."""
        return sum(example.sampled is not None for example in self.examples)

    def new_ids(self) -> dict[str, NDArray[np.bool_]]:
        """Which examples have a new item and which a new user, each [N], by the names of these slices."""
        return {
            NEW_ITEMS: _new([example.item_id for example in self.examples]),
            NEW_USERS: _new([example.user_id for example in self.examples]),
        }

    def first(self, count: int | None) -> "StudyLog":
        """Its first `count` examples; all if None."""
        return self._replace(records=self.records[:count])

    def with_inputs(self, names: Sequence[str], value_NT: NDArray[np.float32]) -> "StudyLog":
        """The same examples with T more dense features, as if the stream had logged them; a NaN is a miss."""
        added = tuple(
            Feature(name=f"context:{name}", source="context", role="dense", dtype="float", default=0.0)
            for name in names
        )
        spec = self.spec.model_copy(update={"features": (*self.spec.features, *added)})
        spec = FeatureSpec.model_validate(spec.model_dump())  # without what the old one has computed of itself
        rows: list[list[Value]] = [[None if v != v else v for v in row] for row in value_NT.tolist()]  # noqa: PLR0124 - NaN
        records = [
            record._replace(
                example=record.example.model_copy(
                    update={"spec_id": spec.spec_id, "features": [*record.example.features, *row]}
                )
            )
            for record, row in zip(self.records, rows, strict=True)
        ]
        return StudyLog(spec, records)


def _new(ids: Sequence[int | str]) -> NDArray[np.bool_]:
    """Which of N ids have come fewer than `NEW_EXAMPLES` times before."""
    seen: dict[int | str, int] = {}
    new_N = np.zeros(len(ids), np.bool_)
    for n, one in enumerate(ids):
        new_N[n] = seen.get(one, 0) < NEW_EXAMPLES
        seen[one] = seen.get(one, 0) + 1
    return new_N


def known_after(seconds: float, event_times_ms: Sequence[int]) -> NDArray[np.intp]:
    """For each of N impressions the place of the first one that comes when its labels are known, `seconds` after it.

    N where none does. Both are in the order of the log; the places do not fall, as examples are learnt in order.
    """
    count = len(event_times_ms)
    time_N = np.maximum.accumulate(np.asarray(event_times_ms, np.float64))
    known_N = np.searchsorted(time_N, time_N + 1000 * seconds)
    return np.clip(np.maximum(known_N, np.arange(count) + 1), 0, count).astype(np.intp)


class Arriving(NamedTuple):
    """N impressions with the features and teacher logits that are known when they come, for served predictions.

    `known_N`: for each the place of the first impression that comes when its labels are known.
    """

    log: StudyLog
    logit_NT: NDArray[np.float32]
    known_N: NDArray[np.intp]


def read_log(folder: Path, spec: FeatureSpec, count: int | None = None) -> StudyLog:
    """The log of `graft stream archive`, in the learner's order; InvalidInputError when it has no example.

    Its first `count` examples, all if None. A study uses no logits of the log: it scores every impression.
    """
    records: list[ExampleRecord] = []
    for some in ExampleLog(folder, spec.spec_id).read({}):
        records += some
        if count is not None and len(records) >= count:
            break
    if not records:
        raise InvalidInputError(
            f"{folder}: no examples: 'graft stream archive' has not written to this folder, or [sampling] has left all "
            "impressions out: see docs/sampling.md"
        )
    return StudyLog(spec, records).first(count)


def write_log(folder: Path, records: Iterable[ExampleRecord]) -> None:
    """Write a log as `graft stream archive` would, whole or not at all; a log that is there stays."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".arriving-") as arriving:
        whole = Path(arriving) / folder.name
        whole.mkdir()
        archive = Archive(whole, {})
        archive.add(list(records))
        archive.flush()
        if not folder.exists():
            whole.rename(folder)


class KeptUsers:
    """A share of the users, drawn by `seed`; a larger share of the same seed holds a smaller one.

    At least one user is kept.
    """

    def __init__(self, user_ids: Iterable[EntityId], share: float, seed: int) -> None:
        self._seed = seed
        places = sorted(map(self._place, set(user_ids)))
        self._last = places[max(1, round(share * len(places))) - 1]

    def of(self, user_ids: Iterable[EntityId]) -> list[EntityId]:
        """Those of them that are kept, in their order; ids that the draw did not know are kept in the same share."""
        return [user_id for user_id in user_ids if self._place(user_id) <= self._last]

    def thinned(self, log: StudyLog) -> StudyLog:
        """The examples of the kept users. Their features are as they were logged, running aggregates too."""
        kept = set(self.of(dict.fromkeys(example.user_id for example in log.examples)))
        records = [record for record in log.records if record.example.user_id in kept]
        return log._replace(records=records)

    def _place(self, user_id: EntityId) -> bytes:
        """Where a user stands in a random order."""
        return hashlib.blake2b(json.dumps([self._seed, user_id]).encode(), digest_size=8).digest()
