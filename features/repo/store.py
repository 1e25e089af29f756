"""Feast itself: apply and materialize a repository. Importing this module imports Feast (1 s, 190 MB).

Redis' address always comes from `redis_url`, and the registry is always REPO/data/registry.db, whatever
feature_store.yaml says; so one repository serves the demo, the tests and production.
"""

import contextlib
import io
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from features.config import FeaturesConfig
from features.repo.batch_tables import BatchTables, make_table
from features.repo.compiler import Compiled, check_features, compile_features
from features.repo.definitions import Definitions, EntityDefinition, FieldDefinition, ViewDefinition
from features.repo.feast import (
    FeatureStore,
    FeatureView,
    FileSource,
    PushSource,
    RepoConfig,
    RepoContents,
    extract_objects_for_apply_delete,
    get_repo_files,
    load_repo_config,
    parse_repo,
)
from features.repo.push_log import PushedTable
from features.spec import EntityId, FeatureSpec, save_spec
from runtime.errors import ConfigurationError, GraftError
from runtime.folder import writing
from runtime.redis import parse_url, reaching


class BatchFile(NamedTuple):
    """A batch view's table: Parquet rows of one entity each, the newest of which holds."""

    path: Path
    join_key: str
    timestamp_field: str


class ViewSources(NamedTuple):
    """Where views get their values: from a file each (by view), or by pushes (push source -> view)."""

    tables: dict[str, BatchFile]
    pushed: dict[str, str]


_TIMEOUT_SECONDS = 10.0  # of one of Feast's pipelines; 10,000 rows take 0.6 s
_FIRST_DAY = datetime(1970, 1, 1, tzinfo=UTC)


def apply(repo: Path, redis_url: str, config: FeaturesConfig) -> FeatureSpec:
    """Register the repository's definitions with Feast, and save and return their compiled spec.

    Views that the repository no longer defines are removed from the registry, and their values from Redis. A pushed
    view without a batch table gets an empty one.
    ConfigurationError with every fault, before anything is changed. Redis is needed only to remove a view's values
    (ServiceUnavailableError). GraftError when the disk refuses.
    """
    store = open_store(repo, redis_url)
    contents = _parse(repo)
    spec = compile_features(config, _definitions(store.config, contents))
    with writing(repo / "data"), reaching(redis_url), _quietly():
        (repo / "data").mkdir(exist_ok=True)
        # All objects, not only the changed ones: Feast types a view's join key by the entities of the same call.
        _, to_delete, _, _ = extract_objects_for_apply_delete(store.project, store.registry, contents)  # type: ignore[no-untyped-call]
        store.apply(_objects(contents), objects_to_delete=to_delete, partial=False)
    for table in pushed_tables(store).values():
        make_table(table)
    save_spec(spec, repo)
    return spec


def compile_spec(repo: Path, redis_url: str, config: FeaturesConfig) -> FeatureSpec:
    """The spec of the repository's definitions, changing nothing; ConfigurationError with every fault."""
    return compile_features(config, _definitions(_repo_config(repo, redis_url), _parse(repo)))


def check_spec(repo: Path, redis_url: str, config: FeaturesConfig) -> Compiled:
    """As `compile_spec`, but with the features that are sound beside the faults.

    ConfigurationError when the repository cannot be read at all.
    """
    return check_features(config, _definitions(_repo_config(repo, redis_url), _parse(repo)))


def materialize(repo: Path, redis_url: str, config: FeaturesConfig, end: datetime | None = None) -> dict[str, int]:
    """Load every batch view of the config's service into Redis: view -> rows written, one per entity.

    Rows up to `end` (now if None) are read; views that are fed by a push source are left alone. Needs an applied
    repository. GraftError names the source files that are missing; ServiceUnavailableError without Redis.
    """
    store = open_store(repo, redis_url)
    views = [view for view in _service_views(store, config.service) if not isinstance(view.stream_source, PushSource)]
    _require_files(repo, views)
    rows = dict.fromkeys((view.name for view in views), 0)
    if rows:
        with reaching(redis_url), _quietly(), _counting(store, rows):
            store.materialize(_FIRST_DAY, end or datetime.now(UTC), feature_views=list(rows))
    return rows


def view_sources(repo: Path, redis_url: str) -> ViewSources:
    """What stands behind the repository's views, which need not be applied; changes nothing."""
    contents = _parse(repo)
    keys = {entity.name: entity.join_key for entity in contents.entities}
    root = _repo_config(repo, redis_url).repo_path or repo
    sources = ViewSources({}, {})
    for view in contents.feature_views:
        if isinstance(view.stream_source, PushSource):
            sources.pushed[view.stream_source.name] = view.name
        elif isinstance(view.batch_source, FileSource):
            path = Path(FileSource.get_uri_for_file_path(root, view.batch_source.path))
            sources.tables[view.name] = BatchFile(path, keys[view.entities[0]], view.batch_source.timestamp_field)
    return sources


def open_store(repo: Path, redis_url: str) -> FeatureStore:
    """Feast's own store object on this repository and that Redis."""
    return FeatureStore(config=_repo_config(repo, redis_url))


def _repo_config(repo: Path, redis_url: str) -> RepoConfig:
    path = repo / "feature_store.yaml"
    try:
        given = load_repo_config(repo, path)
    except FileNotFoundError:
        raise ConfigurationError([f"{path}: no such file; features.repo must name a Feast repository"]) from None
    except Exception as error:  # Feast wraps what is wrong in errors of many kinds
        raise ConfigurationError([f"{path}: {error}"]) from error
    online = given.online_config if isinstance(given.online_config, dict) else {"type": given.online_config}
    if online.get("type") != "redis":
        raise ConfigurationError([f"{path}: online_store.type must be redis, got {online.get('type')!r}"])
    if online.get("redis_type", "redis") != "redis":
        raise ConfigurationError([f"{path}: online_store.redis_type must be redis, got {online['redis_type']!r}"])
    settings = given.model_dump(exclude_unset=True, by_alias=True)
    settings["registry"] = {"registry_type": "file", "path": str(repo.resolve() / "data" / "registry.db")}
    # skip_dedup: else Feast drops a write whose event time equals the stored one.
    settings["online_store"] = {**online, "connection_string": connection_string(redis_url), "skip_dedup": True}
    settings["entity_key_serialization_version"] = given.entity_key_serialization_version
    config = RepoConfig(**settings)
    config.repo_path = repo.resolve()
    return config


def connection_string(redis_url: str) -> str:
    """Redis' address in Feast's ``host:port,name=value`` form.

    Feast splits at commas and reads each value as JSON, so texts are given as JSON strings with escaped commas. Without
    `retry=null`, redis-py tries for ten seconds before it says that there is no server.
    """
    address = parse_url(redis_url)
    texts = {
        "username": address.username,
        "password": address.password,
        "ssl_ca_certs": address.files.ca,
        "ssl_certfile": address.files.certificate,
        "ssl_keyfile": address.files.key,
    }
    quoted = {name: json.dumps(str(text)).replace(",", "\\u002c") for name, text in texts.items() if text}
    options = [f"{name}={text}" for name, text in quoted.items()]
    tls = ["ssl=true"] if address.tls else []
    limits = ["retry=null", f"socket_timeout={_TIMEOUT_SECONDS}", f"socket_connect_timeout={_TIMEOUT_SECONDS}"]
    return ",".join([f"{address.host}:{address.port}", f"db={address.db}", *tls, *limits, *options])


def _parse(repo: Path) -> RepoContents:
    """The objects that the repository's Python files define; ConfigurationError when one of them fails."""
    root = repo.resolve()
    names = {".".join(file.relative_to(root).with_suffix("").parts) for file in get_repo_files(root)}
    try:
        with contextlib.chdir(root), _importing(root, names):
            return parse_repo(root)
    except Exception as error:  # whatever a user's Python file raises
        raise ConfigurationError(
            [f"{repo}: the feature repository cannot be read: {type(error).__name__}: {error}"]
        ) from error


@contextlib.contextmanager
def _importing(root: Path, names: Iterable[str]) -> Iterator[None]:
    """Import the repository's files by name, also where a file is called like a package of ours (features.py)."""
    tops = {name.partition(".")[0] for name in names}

    def taken() -> dict[str, Any]:
        return {name: module for name, module in sys.modules.items() if name.partition(".")[0] in tops}

    hidden = taken()
    for name in hidden:
        del sys.modules[name]
    sys.path.insert(0, str(root))
    try:
        yield
    finally:
        sys.path.remove(str(root))
        for name in taken():
            del sys.modules[name]
        sys.modules.update(hidden)


def _objects(contents: RepoContents) -> list[Any]:
    return [obj for kind in contents for obj in kind]


def _definitions(config: RepoConfig, contents: RepoContents) -> Definitions:
    return Definitions(
        project=config.project,
        entity_key_serialization_version=config.entity_key_serialization_version,
        entities={e.name: EntityDefinition(e.join_key, e.value_type.name) for e in contents.entities},
        views={view.name: _view_definition(view) for view in contents.feature_views},
        services={
            service.name: {p.name: frozenset(f.name for f in p.features) for p in service.feature_view_projections}
            for service in contents.feature_services
        },
    )


def _view_definition(view: FeatureView) -> ViewDefinition:
    pushed = view.stream_source.name if isinstance(view.stream_source, PushSource) else ""
    return ViewDefinition(
        entities=tuple(view.entities),
        fields={f.name: FieldDefinition(f.dtype.to_value_type().name, f.vector_length) for f in view.features},
        push_source=pushed,
        timestamp_field=view.batch_source.timestamp_field if view.batch_source else "",
        online=view.online and view.enabled,
    )


def _service_views(store: FeatureStore, service: str) -> list[FeatureView]:
    """The service's views as the registry has them; GraftError where the repository was not applied."""
    known = {s.name: s for s in store.list_feature_services()}
    if service not in known:
        raise GraftError(
            f"{store.config.registry.path}: no feature service {service!r} in the registry; run 'graft features apply'"
        )
    names = {projection.name for projection in known[service].feature_view_projections}
    return [view for view in store.list_feature_views() if view.name in names]


def _require_files(repo: Path, views: Sequence[FeatureView]) -> None:
    faults = []
    for view in views:
        if isinstance(view.batch_source, FileSource):
            path = FileSource.get_uri_for_file_path(repo.resolve(), view.batch_source.path)
            if "://" not in path and not Path(path).exists():
                faults.append(f"{path}: no such file; it is the source of the feature view {view.name!r}")
    if faults:
        raise GraftError("\n".join(faults))


@contextlib.contextmanager
def _counting(store: FeatureStore, rows: dict[str, int]) -> Iterator[None]:
    """Add each view's written rows to `rows`: Feast reports them nowhere."""
    online: Any = store.provider.online_store
    write: Callable[..., None] = online.online_write_batch

    def counted(config: RepoConfig, table: FeatureView, data: Sequence[Any], progress: Any) -> None:
        write(config, table, data, progress)
        rows[table.name] += len(data)

    online.online_write_batch = counted
    try:
        yield
    finally:
        del online.online_write_batch


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Keep Feast's progress lines off standard output."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield


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


def batch_tables(repo: Path, redis_url: str, spec: FeatureSpec) -> BatchTables:
    """The batch tables of a repository."""
    tables = view_sources(repo, redis_url).tables.values()
    return BatchTables([(table.path, table.join_key, table.timestamp_field) for table in tables], spec)


def known_ids(
    repo: Path, redis_url: str, spec: FeatureSpec, until: datetime | None = None
) -> tuple[list[EntityId], list[EntityId]]:
    """The users and the items of the repository's batch tables; those of rows that begin after `until` are left out."""
    ids = batch_tables(repo, redis_url, spec).ids(until)
    return ids["user"], ids["item"]
