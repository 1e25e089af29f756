"""One recipe for a teacher of the source's log: what it takes and learns, its training, its report, its place.

Shapes: N rows of the source's log in time order, B of them held out, T heads.
"""

import json
import re
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from graft.fit.design import DesignInput, DesignTaste, Source, Split, TeacherDesign
from graft.fit.domain import Domain, missing
from graft.fit.shared import FEWEST, Shared, Unshared, share
from graft.init import names
from graft.init.plan import TEACHER, codes_folder
from graft.init.teacher_match import Candidate, Match, Matched, tasks_of
from graft.init.toml_text import GUESSED, teacher_tables, toml_value, without_teacher
from graft.project import FILE_NAME, Project
from runtime.errors import InvalidInputError
from runtime.folder import replacing
from stream.tasks import TaskKind
from student.evaluate.metrics import exact_auc

if TYPE_CHECKING:
    from collections.abc import Mapping

    from graft.fit.network import Progress, TeacherNetwork

HEAD = ("feature", "input", "as", "known", "why")
"""Of the table of what both domains share."""

_SEED = 7
_EPOCHS = 10
_EMBEDDING_DIM = 16
_BATCHES = 100  # of an epoch, where that gives batches of a size within _BATCH_ROWS
_BATCH_ROWS = (32, 4_096)
_FEWEST_ROWS = 20
_FEW_ROWS = 5_000
_TENTH = 10  # the share of the rows that is held out, and of the others that judges
_RESERVED = ("features", "heads")  # names within the ONNX file
_MOST_IN_COMMON = 2  # items that share a code, on average: with more of them a code does not name its item
_FEWEST_USERS = 20  # for vectors of 8 numbers
_SOURCE_USER = "source_user"  # the input that is a user of the source's own, whom the target does not know
_NO_BETTER_AUC = 0.52
_1970 = datetime(1970, 1, 1, tzinfo=UTC)
_PASSTHROUGH = re.compile(r"^# passthrough = .*$", re.MULTILINE)


class Prepared(NamedTuple):
    """All that is decided before a teacher is trained. `heads`: output -> task of the source.

    `taste`: vectors of the source's users and of the items; None where no input names the item, or users are shared.
    """

    source: Domain
    target: Domain
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

    def table(self) -> list[list[str]]:
        """What both share, for people, under `HEAD`: a row for each feature of the target."""
        return [*(one.row() for one in self.shared), *([one.name, "-", "", "", one.why] for one in self.unshared)]

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

    def matched(self) -> Matched:
        """The teacher, for graft.toml."""
        kinds = {head: self.kind(head) for head in self.heads}
        tasks, distilled, notes = tasks_of(kinds, self.target.labels)
        inputs = [_match(one) for one in self.shared]
        if self.taste:
            why = "the source's users are others: 0 is none of them"
            inputs.append(Match(_SOURCE_USER, "int64", None, 0, why))
        fed = ", ".join(one.feature.name for one in self.shared)
        notes.append(f"whether these mean the same there as here, matched by name, type and values: {fed}")
        vectors = {self.taste.output: self.taste.width} if self.taste else {}
        return Matched(vectors, tasks, inputs, distilled, notes + self._time_notes(), self.trained_until, True)

    def kind(self, head: str) -> TaskKind:
        """Of the task that a head learns."""
        return next(label.kind for label in self.source.labels if label.name == self.heads[head])

    def _time_notes(self) -> list[str]:
        if not self.trained_until:
            what = "all of them lie before the source's, as in data of other years, so teacher.trained_until is not set"
            return [f"whether the teacher has seen the target's events: {what}"]
        end_ms = int(self.source.times_ms[self.split.used - 1])
        before = pc.mean(pc.less_equal(self.target.log.rows["time_ms"], end_ms)).as_py()
        what = f"{before:.0%} of them are before teacher.trained_until and learn nothing of the teacher"
        advice = "where it has none of them, leave out trained_until"
        return [f"whether the source's log has the target's events too: {what}; {advice}"] if before else []


def prepare(target: Domain, source: Domain) -> Prepared:
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
    taken = [*_RESERVED, _SOURCE_USER, *(one.input.name for one in shared)]
    if taste := _taste(prepared, taken):
        prepared = prepared._replace(taste=taste)
        taken.append(taste.output)
    for label in source.labels:
        label_N = _labels(source, label.name, label.kind)[: prepared.split.learnt]
        known = label_N[~np.isnan(label_N)]
        if not len(known) or known.min() == known.max():
            values = f"is {known[0]:g} in every row" if len(known) else "is in no row"
            prepared.warnings.append(f"{label} {values} that is learnt, so the teacher has no such task")
        else:
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
    if finest is None or often > _MOST_IN_COMMON * len(finest.codes) or _user_codes(prepared).max() < _FEWEST_USERS:
        return None
    return DesignTaste(user=_SOURCE_USER, item=finest.input.name, output=names.identifier("item_vector", taken))


def _user_codes(prepared: Prepared) -> NDArray[np.int64]:
    """The code of each of the source's users, from 1 on; 0 is one with too few rows that are learnt."""
    ids = prepared.source.ids["user"]
    often_U = np.bincount(ids.place_N[: prepared.split.learnt], minlength=len(ids.distinct)) >= FEWEST
    return np.where(often_U, np.cumsum(often_U), 0)


def _labels(source: Domain, name: str, kind: TaskKind) -> NDArray[np.float32]:
    """A task's labels, [N]; a yes or no that is missing is a no, a missing number is NaN."""
    column = source.log.rows[f"label.{name}"]
    column = pc.fill_null(column, 0.0) if kind == "binary" else column
    label_N: NDArray[np.float32] = column.to_numpy().astype(np.float32)
    return label_N


def _match(one: Shared) -> Match:
    """An input as graft.toml has it: numbers within what the source has, codes by a file, lists as they are."""
    feature, spec = one.feature, one.input
    default: float | list[float] = spec.default
    transform: Mapping[str, Any] = {"kind": "feature"}
    form = "float32"
    if one.codes:
        transform, default, form = {"kind": "lookup", "file": str(_codes_file(one))}, 0, "int64"
    elif feature.kind == "number":
        transform = {"kind": "linear", "minimum": one.low, "maximum": one.high}
    else:
        default, form = [0.0] * spec.width, f"float32[{spec.width}]"
    candidate = Candidate(feature.name, feature.entity, feature.dtype, one.known)
    return Match(spec.name, form, candidate, default, one.why, transform)


def _codes_file(one: Shared) -> Path:
    """Where the project folder has the codes of an input of the teacher."""
    return codes_folder(TEACHER) / f"{one.input.name}.json"


class TaskReport(NamedTuple):
    """How well one head does on the rows held out: `auc` of a binary one, the others of a regression.

    `rmse_of_mean`: what the mean of the learnt labels reaches. None where the labels are all alike, or there is none.
    """

    name: str
    kind: TaskKind
    auc: float | None = None
    rmse: float | None = None
    rmse_of_mean: float | None = None
    r2: float | None = None

    def line(self) -> str:
        """For people."""
        if self.kind == "binary":
            undefined = "AUC undefined, its labels there are of one class"
            return f"{self.name}: {undefined if self.auc is None else f'AUC {self.auc:.4f}'}"
        if self.rmse is None:
            return f"{self.name}: no label there"
        r2 = "undefined" if self.r2 is None else f"{self.r2:.4f}"
        return f"{self.name}: R2 {r2}, RMSE {self.rmse:.4g}, of the mean {self.rmse_of_mean:.4g}"

    def is_no_better(self) -> bool:
        """Whether it does hardly better than a constant."""
        return (self.auc is not None and self.auc < _NO_BETTER_AUC) or (self.r2 is not None and self.r2 <= 0)


class FitReport(NamedTuple):
    """How many rows were learnt, judged the epochs and were held out; how long it took; how well each head does."""

    learnt_rows: int
    judged_rows: int
    held_out_rows: int
    epochs: int
    seconds: float
    tasks: list[TaskReport]
    warnings: list[str]

    def lines(self) -> list[str]:
        """For people."""
        learnt = f"{self.learnt_rows:,} rows learnt in {self.epochs} epochs and {self.seconds:.1f} s"
        judged = f"{self.judged_rows:,} judged the epochs; on the last {self.held_out_rows:,}, which it has not seen"
        warnings = [f"  warning: {warning}" for warning in self.warnings]
        return [f"teacher: {learnt}, {judged}:", *(f"  {task.line()}" for task in self.tasks), *warnings]

    def summary(self) -> dict[str, Any]:
        """For JSON."""
        return {**self._asdict(), "tasks": [task._asdict() for task in self.tasks]}


class Fitted(NamedTuple):
    """A trained teacher, and how well it does on the rows that it has not seen."""

    prepared: Prepared
    network: "TeacherNetwork"
    report: FitReport

    def write(self, folder: Path) -> None:
        """Write the ONNX file into the project folder, and beside it the codes of what its inputs take."""
        from graft.fit.onnx_file import save_onnx  # noqa: PLC0415 - torch

        save_onnx(self.network, folder / TEACHER)
        for one in self.prepared.shared:
            if one.codes:
                with replacing(folder / _codes_file(one)) as codes:
                    codes.write(json.dumps(one.codes, ensure_ascii=False, indent=0).encode())


def fit(prepared: Prepared, progress: "Progress") -> Fitted:
    """Train the teacher. Same log, same file."""
    from graft.fit.network import predict, train  # noqa: PLC0415 - torch

    started = time.monotonic()
    source, split = training_rows(prepared), prepared.split
    trained = train(source, split, _SEED, progress)
    output_BT = predict(trained.network, source, range(split.used, source.rows), unknown=True)  # as the target asks
    tasks = [_task_report(prepared, head, source, output_BT[:, t]) for t, head in enumerate(prepared.heads)]
    few = f"{source.rows:,} rows are few: what stands here may be chance, and the teacher may know little"
    no_better = [f"{t.name}: hardly better than the same value for every row" for t in tasks if t.is_no_better()]
    warnings = [*prepared.warnings, *([few] if source.rows < _FEW_ROWS else []), *no_better]
    rows, seconds = (split.learnt, split.judged, source.rows - split.used), time.monotonic() - started
    return Fitted(prepared, trained.network, FitReport(*rows, trained.epochs, seconds, tasks, warnings))


def training_rows(prepared: Prepared) -> Source:
    """The design of the teacher, and the rows of the source as it takes them."""
    source, code_U = prepared.source, _user_codes(prepared)
    least, most = _BATCH_ROWS
    users = DesignInput(name=_SOURCE_USER, table="users", codes=int(code_U.max()) + 1, history=True)
    design = TeacherDesign(
        inputs=[*([users] if prepared.taste else []), *(one.input for one in prepared.shared)],
        heads={head: prepared.kind(head) for head in prepared.heads},
        taste=prepared.taste,
        embedding_dim=_EMBEDDING_DIM,
        epochs=_EPOCHS,
        batch_rows=min(most, max(least, source.log.rows.num_rows // _BATCHES)),
        scale_labels=True,
    )
    tables: dict[str, NDArray[Any]] = {f"rows.{entity}": ids.place_N for entity, ids in source.ids.items()}
    tables |= {f"{one.input.table}.{one.input.name}": one.values for one in prepared.shared}
    tables[f"users.{_SOURCE_USER}"] = code_U
    for head, label in prepared.heads.items():
        tables[f"labels.{head}"] = _labels(source, label, prepared.kind(head))
    return Source(design, tables)


def _task_report(prepared: Prepared, head: str, source: Source, output_B: NDArray[np.float32]) -> TaskReport:
    label_N = source.tables[f"labels.{head}"].astype(np.float32)
    label_B = label_N[prepared.split.used :]
    if prepared.kind(head) == "binary":
        return TaskReport(head, "binary", auc=exact_auc(label_B, output_B))
    known_B = ~np.isnan(label_B)
    if not known_B.any():
        return TaskReport(head, "regression")
    mean = float(np.nanmean(label_N[: prepared.split.learnt]))
    label_B, output_B = label_B[known_B].astype(np.float64), output_B[known_B].astype(np.float64)
    error, of_mean = np.mean((output_B - label_B) ** 2), np.mean((mean - label_B) ** 2)
    r2 = float(1 - error / of_mean) if of_mean > 0 else None
    return TaskReport(head, "regression", rmse=float(error**0.5), rmse_of_mean=float(of_mean**0.5), r2=r2)


def has_place_for_unlisted(project: Project) -> bool:
    """Whether features that [features] does not list may feed a teacher: `place` can add them to passthrough."""
    return bool(_PASSTHROUGH.search(_toml(project)))


def check_place(project: Project) -> None:
    """InvalidInputError where the project has a teacher, or a file that would be written is there."""
    if project.teacher is not None:
        raise InvalidInputError(
            f"{project.folder / FILE_NAME}: has a [teacher] already, which stays as it is; for one that is trained "
            "here take [teacher], [teacher.inputs] and [[distillation]] out, and move its file elsewhere"
        )
    for path in (project.folder / TEACHER, project.folder / codes_folder(TEACHER)):
        if path.exists():
            raise InvalidInputError(f"{path}: is there already and is not overwritten; move it elsewhere")


def place(project: Project, fitted: Fitted) -> Path:
    """Write the teacher and its tables: graft.toml, which is returned, has them where it says that there is none.

    Else they stand at its end.
    """
    check_place(project)  # once more: training takes time
    tables = "\n\n".join(teacher_tables(project.name, TEACHER, fitted.prepared.matched()))
    fed = [one.feature.name for one in fitted.prepared.shared]
    text, absent = _toml(project), without_teacher()
    text = text.replace(absent, tables) if absent in text else f"{text.rstrip()}\n\n{tables}\n"
    if unlisted := missing(project, [name for name in fed if ":" in name]):
        line = f"passthrough = {toml_value(unlisted)} {GUESSED} inputs of the teacher that the student does not see"
        text = _PASSTHROUGH.sub(lambda _: line, text, count=1)
    fitted.write(project.folder)
    with replacing(project.folder / FILE_NAME) as written:
        written.write(text.encode())
    return project.folder / FILE_NAME


def _toml(project: Project) -> str:
    return (project.folder / FILE_NAME).read_text(encoding="utf-8")
