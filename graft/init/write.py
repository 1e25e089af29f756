"""Makes the plan of a project and writes its folder; nothing that is there is overwritten."""

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from itertools import islice
from math import ceil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from features.repo.store import compile_spec
from features.spec import Entity
from graft.init import names
from graft.init.entity_table import read_entity_tables, write_entity_table
from graft.init.log import AnyLog, Log
from graft.init.plan import TEACHER, Plan, bases_of, codes_folder, profiles_of
from graft.init.project_text import STORE, definitions, graft_toml
from graft.init.roles import Label
from graft.init.tables import Table
from graft.init.teacher_match import match_teacher
from graft.project import EVENT_FILES, FILE_NAME, load_project
from runtime.errors import ConfigurationError, InvalidInputError
from runtime.folder import writing
from stream.join.validation import Validator
from stream.replay.event_file import read_events
from teacher_cache.kinds.onnx_teacher import read_signature

EVENTS, EVENT_LINES = EVENT_FILES
REPO = "feature_repo"
_CODES = codes_folder(TEACHER).name


class Written(NamedTuple):
    """How many events a project folder has, and in which file."""

    impressions: int
    feedback: int
    file: str


def check_free(folder: Path, *, with_teacher: bool) -> None:
    """InvalidInputError if one of the files to write is there, or `folder` is a file.

    `with_teacher`: a teacher is going to be trained.
    """
    if folder.exists() and not folder.is_dir():
        raise InvalidInputError(f"{folder}: a file; name a folder")
    for name in (FILE_NAME, REPO, EVENTS, EVENT_LINES, *((TEACHER, _CODES) if with_teacher else ())):
        if (folder / name).exists():
            raise InvalidInputError(f"{folder / name}: is there already and is not overwritten; name a new folder")


def make_plan(folder: Path, found: AnyLog, tables: Mapping[Entity, str | None], teacher: Path | None) -> Plan:
    """The plan of a project with this log; InvalidInputError or ConfigurationError says what does not fit.

    `tables`: where the tables of users and of items are; None: there is none.
    """
    log, roles, read = found.log, found.roles, found.documented
    plan = Plan(names.identifier(folder.resolve().name, prefix="project"), roles, log)
    if read:
        plan.event_file = _one_event_file(found.table)
        plan.windows = {name: max(1.0, ceil(delays.max() / 1000)) for name, delays in read.delays_ms.items()}
    plan.bases = bases_of(log, roles.labels)
    plan.tables = read_entity_tables(tables, roles, log)
    if teacher:
        plan.teacher = match_teacher(teacher, plan.candidates(), roles.labels)
        if teacher.resolve().is_relative_to(folder.resolve()):
            plan.teacher_file = teacher.resolve().relative_to(folder.resolve())
    return plan


def write_project(
    folder: Path, plan: Plan, teacher: Path | None, write_teacher: Callable[[Path], None] | None
) -> Written:
    """Write the folder. A file that appeared meanwhile is not overwritten: then InvalidInputError.

    `write_teacher` writes a teacher that was trained into the folder that it is given.
    """
    with writing(folder), _new_folder(folder) as name:
        arriving = Path(name)
        (arriving / REPO / "data").mkdir(parents=True)
        since = datetime.fromtimestamp(pc.min(plan.log.rows["time_ms"]).as_py() / 1000, UTC)
        for table in plan.tables:
            write_entity_table(arriving / REPO / "data" / f"{table.view}.parquet", table, since)
        written = _write_events(arriving, plan)
        if teacher and plan.teacher_file == Path(TEACHER) and teacher.resolve() != (folder / TEACHER).resolve():
            _copy_teacher(teacher, arriving / TEACHER, plan)
        if write_teacher:
            write_teacher(arriving)
        plan.profiles = profiles_of(arriving if (arriving / plan.teacher_file).exists() else folder, plan)
        (arriving / REPO / "feature_store.yaml").write_text(STORE.format(name=plan.name.replace("-", "_")), "utf-8")
        (arriving / REPO / "definitions.py").write_text(definitions(plan), "utf-8")
        (arriving / FILE_NAME).write_text(graft_toml(plan), "utf-8")
        _move(arriving, folder)
    return written


@contextmanager
def _new_folder(folder: Path) -> Iterator[str]:
    """A folder to write to within `folder`, which is removed; `folder` too where it is new and nothing came into it."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix=".arriving-") as name:
            yield name
    finally:
        with suppress(OSError):
            folder.rmdir()  # refused where there is anything


def _write_events(arriving: Path, plan: Plan) -> Written:
    if plan.event_file is None:
        return Written(*write_events(arriving / EVENTS, plan.log, plan.roles.labels), EVENTS)
    name = f"events{plan.event_file.suffix}"
    shutil.copyfile(plan.event_file, arriving / name)
    labels = [plan.log.rows[f"label.{label.name}"] for label in plan.roles.labels]
    return Written(plan.log.rows.num_rows, sum(len(column) - column.null_count for column in labels), name)


def _one_event_file(table: Table) -> Path:
    path = table.files[0].path
    if len(table.files) > 1 or path.suffix not in (".jsonl", ".parquet"):
        raise InvalidInputError(f"{table.where}: events in the documented form; name one file, .jsonl or .parquet")
    return path


def _copy_teacher(teacher: Path, to: Path, plan: Plan) -> None:
    """Copy the file; one with its weights in other files stays where it is, and the project names that place."""
    shutil.copyfile(teacher, to)
    try:
        read_signature(to)
    except ConfigurationError:
        to.unlink()
        plan.teacher_file = teacher.resolve()


def _move(arriving: Path, folder: Path) -> None:
    """The repository first: a second process that writes the same folder fails there."""
    for name in (REPO, EVENTS, EVENT_LINES, TEACHER, _CODES, FILE_NAME):
        if not (arriving / name).exists():
            continue
        if (folder / name).exists():
            raise InvalidInputError(f"{folder / name}: appeared meanwhile and is not overwritten; name a new folder")
        try:
            (arriving / name).rename(folder / name)
        except OSError as error:
            raise InvalidInputError(f"{folder / name}: cannot be written: {error.strerror}") from None


_ROWS = 100_000


def write_events(path: Path, log: Log, labels: list[Label]) -> tuple[int, int]:
    """Write the Parquet file; how many impressions and feedback events it has.

    Feedback has the time of its impression: a log with one time a row says no more. A binary label is written where it
    is 1: without feedback it is 0. Rows without an impression id get e000000000 and following, in time order.
    """
    impressions = feedback = 0
    writer = None
    try:
        for batch in _batches(log, labels):
            writer = writer or pq.ParquetWriter(path, batch.schema)
            writer.write_table(batch)
            shown = pc.sum(pc.equal(batch["type"], "impression")).as_py()
            impressions, feedback = impressions + shown, feedback + batch.num_rows - shown
    finally:
        if writer is not None:
            writer.close()
    return impressions, feedback


def _batches(log: Log, labels: list[Label]) -> Iterator[pa.Table]:
    for start in range(0, log.rows.num_rows, _ROWS):
        rows = log.rows.slice(start, _ROWS).combine_chunks()
        ids = rows["impression"] if "impression" in rows.column_names else _impression_ids(start, rows.num_rows)
        known = {"impression_id": ids, "event_time_ms": rows["time_ms"]}
        shown = {"type": ["impression"] * rows.num_rows, **known, "user_id": rows["user"], "item_id": rows["item"]}
        if context := [name for name in rows.column_names if name.startswith("context.")]:
            shown["context"] = _struct(rows, context)
        parts = [pa.table(shown)]
        order = [np.arange(rows.num_rows) * (len(labels) + 1)]
        for number, label in enumerate(labels, 1):
            values = rows[f"label.{label.name}"]
            told = pc.equal(values, 1.0) if label.kind == "binary" else pc.is_valid(values)
            at = np.flatnonzero(pc.fill_null(told, False).to_numpy())
            answer = {name: values_of.take(at) for name, values_of in known.items()}
            answer |= {"type": ["feedback"] * len(at), "task": [label.name] * len(at), "value": values.take(at)}
            parts.append(pa.table(answer))
            order.append(order[0][at] + number)
        joined = pa.concat_tables(parts, promote_options="default")
        yield joined.take(np.argsort(np.concatenate(order), kind="stable"))


def _impression_ids(start: int, rows: int) -> Any:
    numbers = pa.array(np.arange(start, start + rows)).cast(pa.string())
    texts = pc.binary_join_element_wise("e", pc.utf8_lpad(numbers, 9, "0"), "")
    return pa.chunked_array([texts])


def _struct(rows: pa.Table, names: list[str]) -> Any:
    columns = [rows[name].combine_chunks() for name in names]
    columns = [column.chunk(0) if isinstance(column, pa.ChunkedArray) else column for column in columns]
    return pa.StructArray.from_arrays(columns, [name.removeprefix("context.") for name in names])


_EVENTS = 10_000  # more would take minutes of a long log; 'graft replay --dry-run' reads all


def note_of_copied(folder: Path, redis_url: str) -> str:
    """A note: how many of the first events of the project would become dead letters, and why; "" if none would."""
    project = load_project(folder)
    validator = Validator(compile_spec(project.repo, redis_url, project.features), project.tasks)
    read = unusable = 0
    first = ""
    for event in islice(read_events(project.event_file), _EVENTS):
        read += 1
        try:
            (validator.feedback if event.kind == "feedback" else validator.impression)(event.value)
        except InvalidInputError as error:
            unusable += 1
            first = first or f"line {event.number}: {error}"
    if not unusable:
        return ""
    return (
        f"{unusable:,} of the first {read:,} events would become dead letters, for the file was copied as it is: the "
        f"first is {first}; write such values otherwise, and look at all with 'graft replay FILE --dry-run'"
    )
