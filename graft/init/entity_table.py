"""A table of users or items: which column has the log's ids, and what the others are as features."""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from features.spec import Dtype, Entity
from graft.init import names
from graft.init.columns import Column, columns_of, flags, ids, numbers, texts, times_ms
from graft.init.files import is_unnamed
from graft.init.log import DAY_MS, Log
from graft.init.roles import Roles
from graft.init.tables import FILE_DATE, Table, column
from runtime.errors import InvalidInputError

FeatureRole = Literal["dense", "categorical", "embedding", ""]
FeastType = Literal["Int64", "Float32", "String", "Array(Float32)"]

_DTYPES: dict[FeastType, Dtype] = {"Int64": "int", "Float32": "float", "String": "str", "Array(Float32)": "float_list"}
_MOST_WORDS = 64  # of a text such as Action|Comedy, which becomes one number a word
_NO_WORD = ("", "unknown", "none", "n/a", "(no genres listed)")
_WORDS = b"graft.words"
_WITH_COMMA = r"\W*\d[\d.' ]*,\d[\d.,]*\s*\W?\w{0,3}"  # 3,5 and 1,000.50 and 12,50 EUR
_YEAR = r"\((?P<year>1[5-9][0-9]{2}|20[0-9]{2})\)\s*$"
_NEARLY_ALL = 0.9  # of the texts of a column with years
_MOST_CATEGORIES = 0.5  # as a share of the rows: above it a text names its row


@dataclass(frozen=True)
class TableFeature:
    """One column as a feature. `role` "": the student does not see it; `filled`: the share of rows with a value.

    `low`, `high`: of numbers. `width`: of a list. `words`: for which word of texts such as Action|Comedy each number
    of the list stands.
    `default`: None where a miss has a value of its own.
    """

    name: str
    column: str
    feast_type: FeastType
    role: FeatureRole
    filled: float
    default: float | list[float] | None = None
    low: float = 0.0
    high: float = 0.0
    width: int = 0
    words: tuple[str, ...] = ()

    @property
    def dtype(self) -> Dtype:
        """Its type as a feature spec names it."""
        return _DTYPES[self.feast_type]


@dataclass(frozen=True)
class EntityTable:
    """A table as a batch view. `covered`: the share of the log's rows whose id it has."""

    entity: Entity
    where: str
    key: str
    features: list[TableFeature]
    rows: pa.Table
    covered: float
    notes: list[str]

    @property
    def view(self) -> str:
        """The name of its feature view."""
        return f"{self.entity}_profile"


def read_entity_tables(where: Mapping[Entity, str | None], roles: Roles, log: Log) -> list[EntityTable]:
    """The tables of users and items that were named, keyed by the log's ids."""
    whole = {"user": log.user_whole, "item": log.item_whole}
    return [
        read_entity_table(path, entity, roles.column(entity), log.rows[entity], whole=whole[entity])
        for entity, path in where.items()
        if path
    ]


def read_entity_table(where: str, entity: Entity, log_name: str, log_ids: Any, *, whole: bool) -> EntityTable:
    """The table with its key, one row for each id. `log_ids`: the ids of the log's rows; `log_name`: their column.

    InvalidInputError if no column has any of these ids.
    """
    table = Table(where)
    batches = list(table.batches())
    columns = columns_of(batches)
    if not batches or not any(column.rows for column in columns.values()):
        raise InvalidInputError(f"{where}: no rows below the names of the columns")
    distinct = pc.unique(log_ids)
    key, covered = key_of(columns, batches, entity, log_name, log_ids, distinct, whole)
    if key is None:
        raise InvalidInputError(f"{where}: {without_key(columns, entity, log_name, distinct)}")
    notes = [f"{where}: {count:,} {reason} were left out" for reason, count in table.left_out.items()]
    rows, features = _rows(columns, batches, key, entity, whole)
    notes += [f"{where}: {_odd(column)}" for column in columns.values() if _is_odd_number(column)]
    usable = rows.filter(pc.is_valid(rows[f"{entity}_id"]))
    if lost := rows.num_rows - usable.num_rows:
        why = "is not an integer, as the log's ids are" if whole else "is missing"
        notes.append(f"{where}: {lost:,} rows were left out, in which {key!r} {why}")
    last = _last_of_each(usable, f"{entity}_id")
    if dropped := usable.num_rows - last.num_rows:
        notes.append(f"{where}: {dropped:,} rows have an id that a later row has too; the last row of each was taken")
    return EntityTable(entity, where, key, features, last, covered, notes)


def write_entity_table(path: Path, table: EntityTable, since: datetime) -> None:
    """Write the batch table; each row holds from `since` on. The metadata of a list's field has its words."""
    times = pa.array([since.astimezone(UTC)] * table.rows.num_rows, pa.timestamp("us", tz="UTC"))
    words = {feature.name: feature.words for feature in table.features if feature.words}
    fields = [
        field.with_metadata({_WORDS: json.dumps(words[field.name])}) if field.name in words else field
        for field in table.rows.schema
    ]
    rows = table.rows.cast(pa.schema(fields))
    pq.write_table(rows.append_column("event_timestamp", times), path)


def words_at(field: pa.Field) -> tuple[str, ...]:
    """The word that each number of a list stands for, where `write_entity_table` wrote the table; none elsewhere."""
    return tuple(json.loads((field.metadata or {}).get(_WORDS, b"[]")))


def _is_odd_number(found: Column) -> bool:
    return found.kind == "text" and all(re.fullmatch(_WITH_COMMA, sample.strip()) for sample in found.samples)


def _odd(found: Column) -> str:
    shown = ", ".join(map(repr, found.samples))
    return f"{found.name}: its values, such as {shown}, are texts and no numbers; write them as 1234.5 for numbers"


def _rows(
    columns: dict[str, Column],
    batches: list[pa.RecordBatch],
    key: str,
    entity: Entity,
    whole: bool,  # noqa: FBT001
) -> tuple[pa.Table, list[TableFeature]]:
    found: dict[str, Any] = {
        f"{entity}_id": pa.chunked_array([ids(column(batch, key), whole=whole) for batch in batches])
    }
    features: list[TableFeature] = []
    for name, held in columns.items():
        if name in (key, FILE_DATE) or held.kind == "empty" or is_unnamed(name):
            continue
        values = pa.chunked_array([_value(column(batch, name), held) for batch in batches])
        feature_name = names.identifier(name, [feature.name for feature in features], "column")
        feature, values = _feature(feature_name, held, values)
        features.append(feature)
        found[feature_name] = values
        if held.kind == "text" and (dated := _year(feature, held, values, [known.name for known in features])):
            features.append(dated[0])
            found[dated[0].name] = dated[1]
    return pa.table(found), features


def _value(values: Any, held: Column) -> Any:
    """One batch of a column in the type of its kind."""
    match held.kind:
        case "int":
            return ids(values, whole=True)
        case "float":
            return numbers(values).cast(pa.float32(), safe=False)
        case "bool":
            return flags(values).cast(pa.int64())
        case "time":
            return pc.divide(times_ms(values, None).cast(pa.float64()), DAY_MS).cast(pa.float32())
        case "list" if len(held.widths) == 1:
            return values.cast(pa.list_(pa.float32()), safe=False)
    return texts(values)


def _feature(name: str, held: Column, values: Any) -> tuple[TableFeature, Any]:
    """The feature that a column is, and its values, which are changed where a text has several words."""
    column, filled, low, high = held.name, held.filled, held.low, held.high
    match held.kind:
        case "int" if names.means(column, names.CODE):
            return TableFeature(name, column, "Int64", "categorical", filled, low=low, high=high), values
        case "int":
            mean = round(pc.mean(values).as_py() or 0)
            return TableFeature(name, column, "Int64", "dense", filled, mean, low, high), values
        case "bool":
            mean = round(pc.mean(values).as_py() or 0)
            return TableFeature(name, column, "Int64", "dense", filled, mean, 0.0, 1.0), values
        case "float" | "time":
            mean, span = float(f"{pc.mean(values).as_py() or 0:.4g}"), pc.min_max(values).as_py()
            low, high = span["min"] or 0.0, span["max"] or 0.0
            return TableFeature(name, column, "Float32", "dense", filled, mean, low, high), values
        case "list" if len(held.widths) == 1:
            return _vector(name, held, next(iter(held.widths))), values
    return _text_feature(name, held, values)


def _vector(name: str, held: Column, width: int, words: Sequence[str] = ()) -> TableFeature:
    zeros, words = [0.0] * width, tuple(words)
    return TableFeature(name, held.name, "Array(Float32)", "embedding", held.filled, zeros, 0.0, 0.0, width, words)


def _text_feature(name: str, held: Column, values: Any) -> tuple[TableFeature, Any]:
    if known := _words(values):
        return _vector(name, held, len(known), known), _many_hot(values, known)
    distinct, rows = len(pc.unique(values)), len(values)
    if distinct > 10 and distinct > _MOST_CATEGORIES * rows:
        return TableFeature(name, held.name, "String", "", held.filled), values  # it nearly names its row
    return TableFeature(name, held.name, "String", "categorical", held.filled), values


def _year(feature: TableFeature, held: Column, values: Any, taken: Sequence[str]) -> tuple[TableFeature, Any] | None:
    """The year at the end of texts such as ``Alien (1979)``; None where the column is not of that form."""
    if feature.feast_type != "String":
        return None
    numbers_of = [pc.struct_field(pc.extract_regex(part, _YEAR), "year").cast(pa.int64()) for part in values.chunks]
    years = pa.chunked_array(numbers_of, pa.int64())
    filled = 1 - years.null_count / max(1, len(years))
    if filled < _NEARLY_ALL:
        return None
    span, mean = pc.min_max(years).as_py(), round(pc.mean(years).as_py())
    name = names.identifier(f"{feature.name}_year", taken, "column")
    return TableFeature(name, held.name, "Int64", "dense", filled, mean, span["min"], span["max"]), years


def _words(values: Any) -> list[str]:
    """The words of texts such as Action|Comedy, sorted; none where the column is not of that form."""
    if (pc.mean(pc.match_substring(values, "|")).as_py() or 0) < 0.2:
        return []
    counts: Counter[str] = Counter()
    for text in pc.unique(values).drop_null().to_pylist():
        counts.update(word.strip() for word in text.split("|"))
        if len(counts) > _MOST_WORDS:
            return []
    return sorted(word for word in counts if word.lower() not in _NO_WORD)


def _many_hot(values: Any, known: list[str]) -> Any:
    def numbers_of(text: str | None) -> list[float] | None:
        if text is None:
            return None
        has = {word.strip() for word in text.split("|")}
        return [float(word in has) for word in known]

    return pa.chunked_array([[numbers_of(text) for text in values.to_pylist()]], pa.list_(pa.float32()))


def _last_of_each(rows: pa.Table, key: str) -> pa.Table:
    """The last row of each id, in their order."""
    numbered = pa.table({"key": rows[key], "at": pa.array(range(rows.num_rows), pa.int64())})
    last = numbered.group_by("key").aggregate([("at", "max")])["at_max"]
    return rows.take(pc.take(last, pc.sort_indices(last)))


_NO_CHANCE = 0.5  # of the log's ids, in a column of a table where another one is called as the key
_KEY_LIKE = 0.9  # of the rows, which a key that is not called so tells apart


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
    return len(pc.unique(values)) >= _KEY_LIKE * len(values)


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
