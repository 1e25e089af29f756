"""Finds the column of a table that has the log's ids: by name first, then by content, never by chance."""

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from features.spec import Entity
from graft.init import names
from graft.init.columns import Column
from graft.init.files import is_unnamed
from graft.init.tables import FILE_DATE, column
from graft.init.values import ids, texts

_NO_CHANCE = 0.5  # of the log's ids, in a column of a table where another one is called as the key
_NEARLY_ALL = 0.9  # of the rows, which a key that is not called so tells apart


def key_of(
    columns: dict[str, Column],
    batches: list[pa.RecordBatch],
    entity: Entity,
    log_name: str,
    log_ids: Any,
    distinct: Any,
    whole: bool,  # noqa: FBT001 - passed on
) -> tuple[str | None, float]:
    """The column with the log's ids, by name first, then by content; and the share of the log's rows that it covers.

    `log_ids`: those of the log's rows; `distinct`: each of them once. None and 0 where none is the key.
    """
    shares = {}
    others = [name for name in columns if _is_others(name, entity, log_name)]
    for name, found in columns.items():
        if _may_be_ids(found) and name not in others:
            values = _ids_of(batches, name, whole)
            shares[name] = pc.mean(pc.is_in(distinct, value_set=values.cast(distinct.type))).as_py() or 0.0
    named = {name: _is_named(name, entity, log_name) for name in shares}
    fitting = [name for name, share in shares.items() if share > 0]
    if not any(map(named.get, fitting)):
        # ages and counts are numbers too: a key that is not called so tells the rows apart, and is no chance
        least = _NO_CHANCE if any(named.values()) else 0.0
        may_be = [n for n in fitting if shares[n] >= least and not others]
        fitting = [n for n in may_be if _is_unique(_ids_of(batches, n, whole))]
    if not fitting:
        return None, 0.0
    best = max(fitting, key=lambda name: (name == log_name, named[name], shares[name]))
    values = _ids_of(batches, best, whole)
    return best, pc.mean(pc.is_in(log_ids, value_set=values.cast(distinct.type))).as_py()


def _may_be_ids(found: Column) -> bool:
    is_whole = not any("." in sample for sample in found.samples)  # 0501 and what is beyond 64 bits: ids that are texts
    if found.name == FILE_DATE or is_unnamed(found.name):
        return False
    return found.kind in ("int", "text", "time") or (found.kind == "float" and is_whole)


def _is_named(name: str, entity: Entity, log_name: str) -> bool:
    meanings = names.USER if entity == "user" else names.ITEM
    return name == log_name or names.means(name, meanings) >= 2 or name.lower() == "id"


def _is_others(name: str, entity: Entity, log_name: str) -> bool:
    """Whether a column is called as the ids of the other entity."""
    others = names.ITEM if entity == "user" else names.USER
    return name != log_name and names.is_called_id(name) and names.means(name, others) >= 2


def _is_unique(values: Any) -> bool:
    return len(pc.unique(values)) >= _NEARLY_ALL * len(values)


def without_key(columns: dict[str, Column], entity: Entity, log_name: str, distinct: Any) -> str:
    """Why no column is the key, with ids of both and what to do."""
    shown = ", ".join(texts(distinct[:3]).to_pylist())
    told = f"no column has an id of the log's {entity}s, whose column {log_name!r} has ids such as {shown}; "
    named = [found for found in columns.values() if _is_named(found.name, entity, log_name) and found.samples]
    if named:
        return f"{told}{named[0].name!r} has {', '.join(named[0].samples)}: write them alike"
    return f"{told}is it the table of other {entity}s? Else call its key {log_name!r}"


def _ids_of(batches: list[pa.RecordBatch], name: str, whole: bool) -> Any:  # noqa: FBT001 - passed on
    return pa.concat_arrays([ids(column(batch, name), whole=whole) for batch in batches])
