"""Decides what a teacher of a source's log takes and what it learns, before it is trained.

Shapes: N rows of the source's log in time order.
"""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from graft.fit.shared import FEWEST, Shared, Unshared, share
from graft.fit.source_log import SourceLog
from graft.fit.target import Target
from graft.init import names
from graft.init.plan import codes_folder
from graft.init.teacher_match import Candidate, Match, Matched, tasks_of
from runtime.errors import InvalidInputError
from stream.tasks import TaskKind
from teacher_cache.fit.source import DesignTaste, Split

if TYPE_CHECKING:
    from collections.abc import Mapping

_FEWEST_ROWS = 20
_TENTH = 10  # the share of the rows that is held out, and of the others that judges
_RESERVED = ("features", "heads")  # names within the ONNX file
_MOST_IN_COMMON = 2  # items that share a code, on average: with more of them a code does not name its item
_FEWEST_USERS = 20  # for vectors of 8 numbers
SOURCE_USER = "source_user"
"""The input that is a user of the source's own, whom the target does not know."""
_1970 = datetime(1970, 1, 1, tzinfo=UTC)


class Prepared(NamedTuple):
    """All that is decided before a teacher is trained. `heads`: output -> task of the source.

    `taste`: vectors of the source's users and of the items; None where no input names the item, or users are shared.
    """

    source: SourceLog
    target: Target
    shared: list[Shared]
    unshared: list[Unshared]
    heads: dict[str, str]
    warnings: list[str]
    taste: DesignTaste | None = None

    @property
    def split(self) -> Split:
        """The last tenth is held out; the last tenth of the others judges each epoch."""
        rows = self.source.log.rows.num_rows
        used = rows - rows // _TENTH
        return Split(used - used // _TENTH, used // _TENTH)

    @property
    def trained_until(self) -> str:
        """Just after the last row that is not held out; "" where the target's events all lie before the source's.

        Then they are of another time line, as in two data sets of different years.
        """
        times_ms = self.source.times_ms
        if pc.max(self.target.log.rows["time_ms"]).as_py() < times_ms[0]:
            return ""
        moment = _1970 + timedelta(milliseconds=int(times_ms[self.split.used - 1]) + 1)
        moment = min(moment, datetime.now(UTC))  # a log may be some minutes ahead of the clock
        return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")

    def matched(self, file: str) -> Matched:
        """The teacher in this file, for graft.toml."""
        kinds = {head: self._kind(label) for head, label in self.heads.items()}
        tasks, distilled, notes = tasks_of(kinds, self.target.labels)
        inputs = [_match(one, file) for one in self.shared]
        vectors = {}
        if self.taste:
            inputs.append(Match(SOURCE_USER, "int64", None, 0, "the source's users are others: 0 is none of them"))
            vectors[self.taste.output] = self.taste.width
        fed = ", ".join(one.feature.name for one in self.shared)
        notes.append(f"whether these mean the same there as here, matched by name, type and values: {fed}")
        notes += self._time_notes()
        return Matched(vectors, tasks, inputs, distilled, notes, self.trained_until, is_fitted=True)

    def _kind(self, label: str) -> TaskKind:
        return next(one.kind for one in self.source.labels if one.name == label)

    def _time_notes(self) -> list[str]:
        if not self.trained_until:
            what = "all of them lie before the source's, as in data of other years, so teacher.trained_until is not set"
            return [f"whether the teacher has seen the target's events: {what}"]
        end_ms = int(self.source.times_ms[self.split.used - 1])
        before = pc.mean(pc.less_equal(self.target.log.rows["time_ms"], end_ms)).as_py()
        if not before:
            return []
        what = f"{before:.0%} of them are before teacher.trained_until and learn nothing of the teacher"
        advice = "where it has none of them, leave out trained_until"
        return [f"whether the source's log has the target's events too: {what}; {advice}"]


def prepare(target: Target, source: SourceLog) -> Prepared:
    """Decide all of it; InvalidInputError where nothing is shared or nothing can be learnt, with what can be done."""
    rows = source.log.rows.num_rows
    if rows < _FEWEST_ROWS:
        raise InvalidInputError(f"{source.where}: {rows} rows; a teacher needs at least {_FEWEST_ROWS}")
    shared, unshared = share(target, source)
    if not shared:
        reasons = "; ".join(f"{one.name}: {one.why}" for one in unshared)
        raise InvalidInputError(
            f"{source.where}: source and target share no column, so a teacher could tell nothing of the target "
            f"({reasons}); name tables of both (users, items), and rename columns that mean the same"
        )
    prepared = Prepared(source, target, shared, unshared, {}, [])
    learnt = prepared.split.learnt
    taken = [*_RESERVED, SOURCE_USER, *(one.input.name for one in shared)]
    if taste := _taste(prepared, taken):
        prepared = prepared._replace(taste=taste)
        taken.append(taste.output)
    for label in source.labels:
        values = labels_of(source, label.name, label.kind)[:learnt]
        known = values[~np.isnan(values)]
        if not len(known) or known.min() == known.max():
            said = f"is {known[0]:g} in every row" if len(known) else "is in no row"
            prepared.warnings.append(f"{label} {said} that is learnt, so the teacher has no such task")
            continue
        prepared.heads[names.identifier(label.name, [*taken, *prepared.heads], "task")] = label.name
    if not prepared.heads:
        raise InvalidInputError(
            f"{source.where}: no label varies, so there is nothing to learn: {'; '.join(prepared.warnings)}; add the "
            "rows that were answered otherwise, or name another label"
        )
    return prepared


def _taste(prepared: Prepared, taken: list[str]) -> DesignTaste | None:
    """Vectors of the source's users, and of the items by the input that names them.

    None where the target has the same users, or no input names the item, or too few users have enough rows.
    """
    if any(one.feature.name == "user_id" for one in prepared.shared):
        return None
    of_items = [one for one in prepared.shared if one.codes and one.feature.entity == "item"]
    finest = max(of_items, key=lambda one: len(one.codes), default=None)
    often = int((prepared.source.ids["item"].counts() >= FEWEST).sum())
    if finest is None or often > _MOST_IN_COMMON * len(finest.codes) or user_codes(prepared).max() < _FEWEST_USERS:
        return None
    return DesignTaste(user=SOURCE_USER, item=finest.input.name, output=names.identifier("item_vector", taken))


def user_codes(prepared: Prepared) -> NDArray[np.int64]:
    """The code of each of the source's users, from 1 on; 0 is one with too few rows that are learnt."""
    ids = prepared.source.ids["user"]
    often_U = np.bincount(ids.place_N[: prepared.split.learnt], minlength=len(ids.distinct)) >= FEWEST
    return np.where(often_U, np.cumsum(often_U), 0)


def labels_of(source: SourceLog, name: str, kind: TaskKind) -> NDArray[np.float32]:
    """A task's labels, [N]; a yes or no that is missing is a no, a missing number is NaN."""
    column = source.log.rows[f"label.{name}"]
    column = pc.fill_null(column, 0.0) if kind == "binary" else column
    labels: NDArray[np.float32] = column.to_numpy().astype(np.float32)
    return labels


def _match(one: Shared, file: str) -> Match:
    """An input as graft.toml has it: numbers within what the source has, codes by a file, lists as they are."""
    feature, spec = one.feature, one.input
    default: float | list[float] = spec.default
    transform: Mapping[str, Any] = {"kind": "feature"}
    form = "float32"
    if one.codes:
        transform, default, form = {"kind": "lookup", "file": str(codes_file(one, file))}, 0, "int64"
    elif feature.kind == "number":
        transform = {"kind": "linear", "minimum": one.low, "maximum": one.high}
    else:
        default, form = [0.0] * spec.width, f"float32[{spec.width}]"
    candidate = Candidate(feature.name, feature.entity, feature.dtype, one.known)
    return Match(spec.name, form, candidate, default, one.why, transform)


def codes_file(one: Shared, file: str) -> Path:
    """Where the project folder has the codes of an input of the teacher in `file`."""
    return codes_folder(file) / f"{one.input.name}.json"
