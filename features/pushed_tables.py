"""The batch tables of the views that push sources feed. Imports Feast."""

from pathlib import Path

import pyarrow as pa

from features.feast import FeatureStore, FeatureView, FileSource, PushSource
from features.push_log import PushedTable

_TYPES = {
    "INT32": pa.int32(),
    "INT64": pa.int64(),
    "FLOAT": pa.float32(),
    "DOUBLE": pa.float64(),
    "FLOAT_LIST": pa.list_(pa.float32()),
    "DOUBLE_LIST": pa.list_(pa.float64()),
}


def pushed_tables(store: FeatureStore) -> dict[str, PushedTable]:
    """Push source -> the table of its view, where that is a Parquet file on a disk of this machine."""
    root = Path(str(store.config.repo_path))
    tables: dict[str, PushedTable] = {}
    for view in store.list_feature_views():
        if isinstance(view.stream_source, PushSource) and (table := _table(view, root)) is not None:
            tables[view.stream_source.name] = table
    return tables


def _table(view: FeatureView, root: Path) -> PushedTable | None:
    source = view.batch_source
    if not isinstance(source, FileSource) or not all(f.dtype.to_value_type().name in _TYPES for f in view.features):
        return None
    path = FileSource.get_uri_for_file_path(root, source.path)
    if "://" in path or not path.endswith(".parquet") or Path(path).is_dir():
        return None
    (key,) = view.entity_columns
    return PushedTable(
        Path(path),
        key.name,
        "str" if key.dtype.to_value_type().name == "STRING" else "int",
        {field.name: _TYPES[field.dtype.to_value_type().name] for field in view.features},
        source.timestamp_field,
    )
