"""How much of a log the tables and the teacher of a project know."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from features.repo.store import BatchFile, compile_spec, view_sources
from features.spec import FeatureSpec
from graft.init.columns import ids, texts
from graft.init.log import Log
from graft.init.look import Overlap
from graft.project import Project
from teacher_cache.config import DefaultInput, FeatureInput, LookupInput, TeacherInput, VocabularyInput, features_of
from teacher_cache.domain.domain_map_faults import read_table
from teacher_cache.kinds.load import load_teacher
from teacher_cache.teacher import ServerAccess, Teacher, TeacherOutputError

_MOST_IDS = 50_000  # that the teacher is asked for, the most frequent ones
_ASKED_AT_ONCE = 1_024


def overlaps(project: Project, redis_url: str, log: Log, access: ServerAccess) -> list[Overlap]:
    """How much of the log each batch view knows, and each input of the teacher that an id or a context feeds.

    ConfigurationError where the project has faults.
    """
    spec = compile_spec(project.repo, redis_url, project.features)
    found = list(_of_tables(view_sources(project.repo, redis_url).tables, spec, log))
    if project.teacher is None:
        return found
    teacher = load_teacher(project.teacher, project.folder, access)
    for name, mapped in project.teacher.inputs.items():
        features = [] if isinstance(mapped, DefaultInput) else features_of(mapped)
        rows = _column(features[0], log) if len(features) == 1 else None
        if rows is None:
            continue
        if isinstance(mapped, LookupInput | VocabularyInput):
            table = read_table(mapped, project.folder)
            found.append(_share(f"teacher.inputs.{name}", mapped.feature, texts(rows), list(table)))
        elif isinstance(mapped, FeatureInput) and mapped.feature in ("user_id", "item_id"):
            found.append(_asked(name, mapped.feature, rows, teacher, project.teacher.inputs))
    return found


def _of_tables(tables: dict[str, BatchFile], spec: FeatureSpec, log: Log) -> Iterator[Overlap]:
    entities = {spec.user_join_key: "user", spec.item_join_key: "item"}
    for view, table in tables.items():
        if table.join_key in entities and Path(table.path).exists():
            known = pq.read_table(table.path, columns=[table.join_key])[table.join_key]
            entity = entities[table.join_key]
            yield _share(view, f"{entity}_id", texts(log.rows[entity]), pc.unique(texts(known)).to_pylist())


def _column(feature: str, log: Log) -> Any:
    name = {"user_id": "user", "item_id": "item"}.get(feature, feature.replace("context:", "context."))
    return log.rows[name] if name in log.rows.column_names else None


def _share(by: str, of: str, rows: Any, known: list[Any]) -> Overlap:
    values = pa.array([str(value) for value in known if value is not None], rows.type)
    return Overlap(by=by, of=of, known=_mean_in(rows, values), ids=_mean_in(pc.unique(rows), values))


def _mean_in(rows: Any, values: Any) -> float:
    return float(pc.mean(pc.is_in(rows, value_set=values)).as_py() or 0.0)


def _asked(name: str, feature: str, rows: Any, teacher: Teacher, inputs: dict[str, TeacherInput]) -> Overlap:
    """The share of ids that the teacher can compute, with the defaults of its other inputs."""
    counted = pc.value_counts(rows)
    counts, values = counted.field("counts").to_numpy(), counted.field("values")
    if teacher.inputs[name].dtype.kind != "O":
        values = ids(values, whole=True)  # null: no integer, so the teacher cannot take it
    most = np.argsort(-counts, kind="stable")[:_MOST_IDS]
    asked = most[values.is_valid().to_numpy(zero_copy_only=False)[most]]
    is_known = np.zeros(len(counts), bool)
    for start in range(0, len(asked), _ASKED_AT_ONCE):
        part = asked[start : start + _ASKED_AT_ONCE]
        taken = values.take(pa.array(part)).to_numpy(zero_copy_only=False)
        is_known[part] = _computed(name, taken, teacher, inputs)
    known, weights = is_known[most], counts[most]
    return Overlap(
        by=f"teacher.inputs.{name}",
        of=feature,
        known=float((known * weights).sum() / weights.sum()),
        ids=float(known.mean()),
    )


def _computed(name: str, values: Any, teacher: Teacher, inputs: dict[str, TeacherInput]) -> Any:
    rows = {}
    for other, tensor in teacher.inputs.items():
        shape = (len(values),) if tensor.width == 1 else (len(values), tensor.width)
        rows[other] = np.broadcast_to(np.asarray(inputs[other].default, tensor.dtype), shape).copy()
    rows[name] = np.asarray(values, teacher.inputs[name].dtype)
    computed = np.ones(len(values), bool)
    try:
        computed &= np.isfinite(teacher.score(rows)).all(axis=1)  # a dump may lack rows
    except TeacherOutputError as error:
        computed[list(error.rows)] = False
    return computed
