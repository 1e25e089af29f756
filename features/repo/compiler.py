"""Compiles graft.toml's `[features]` and a Feast repository's definitions into the feature spec; finds every fault."""

from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

from features.config import FeaturesConfig, parse_expression
from features.contract import context_name
from features.online.redis_layout import DTYPES, SERIALIZATION_VERSION
from features.repo.definitions import Definitions, FieldDefinition, ViewDefinition, fed_fields, push_source_faults
from features.spec import Entity, Feature, FeatureSpec, IdType, Role, Value
from runtime.errors import ConfigurationError

_TYPES = ("FLOAT", "DOUBLE", "FLOAT_LIST", "DOUBLE_LIST")


def profile_faults(
    config: FeaturesConfig, definitions: Definitions, entities: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    """Each fault of the tables: the key below `features`, and what is wrong. `entities`: Feast's of user and item."""
    fed = [one.push_source for one in config.aggregates] + [one.push_source for one in config.profiles]
    for profile in config.profiles:
        key = f"profiles.{profile.push_source}"
        for fault in push_source_faults(profile, fed, definitions, entities[profile.entity]):
            yield key, fault
        if any(other.entity == profile.entity for other in config.profiles if other is not profile):
            yield (
                key,
                f"another table has profiles of the {profile.entity}, too; put all columns into one view and table",
            )
        for column in profile.columns:
            for field in fed_fields(definitions, profile.push_source, column):
                if (found := field.value_type) not in _TYPES:
                    yield f"{key}.columns.{column}", f"needs a field of type {', '.join(_TYPES)}; it is {found}"


def profile_of(config: FeaturesConfig, push_source: str, field: str) -> str:
    """The teacher task or vector whose mean a field of that push source's view is; "" where it is no profile."""
    return next((p.columns[field] for p in config.profiles if p.push_source == push_source and field in p.columns), "")


_WHOLE_TYPES = ("INT32", "INT64", "FLOAT", "DOUBLE")
_FRACTION_TYPES = ("FLOAT", "DOUBLE")


def aggregate_faults(
    config: FeaturesConfig, definitions: Definitions, entities: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    """Each fault of the tables: the key below `features`, and what is wrong. `entities`: Feast's of user and item."""
    fed = [aggregate.push_source for aggregate in config.aggregates]
    for aggregate in config.aggregates:
        key = f"aggregates.{aggregate.push_source}"
        for fault in push_source_faults(aggregate, fed, definitions, entities[aggregate.entity]):
            yield key, fault
        for column, text in aggregate.columns.items():
            fields = fed_fields(definitions, aggregate.push_source, column)
            faults = _column_faults(text, fields, decays=aggregate.half_life_seconds is not None)
            yield from ((f"{key}.columns.{column}", fault) for fault in faults)


def value_before_examples(feature: Feature, config: FeaturesConfig, definitions: Definitions) -> float:
    """What a dense feature is where no example was aggregated: the prior of a rate, else 0."""
    view = definitions.views.get(feature.view)
    for aggregate in config.aggregates:
        if view and view.push_source == aggregate.push_source and feature.feature in aggregate.columns:
            return parse_expression(aggregate.columns[feature.feature]).prior
    return 0.0


def _column_faults(text: str, fields: list[FieldDefinition], *, decays: bool) -> Iterator[str]:
    is_whole = parse_expression(text).kind == "count" and not decays
    allowed = _WHOLE_TYPES if is_whole else _FRACTION_TYPES
    for field in fields:
        if field.value_type not in allowed:
            what = f"{text} with a half-life" if decays else text
            yield f"{what} needs a field of type {', '.join(allowed)}; it is {field.value_type}"


_ID_TYPES: dict[str, IdType] = {"INT64": "int", "STRING": "str"}
_ROLES: tuple[Role, ...] = ("dense", "embedding", "categorical", "passthrough")
_FITTING: dict[Role, tuple[str, ...]] = {
    "dense": ("int", "float"),
    "embedding": ("float_list",),
    "categorical": ("int", "float", "str"),
    "passthrough": ("int", "float", "str", "float_list"),
}
_IDS: dict[str, Literal["user_id", "item_id"]] = {"user_id": "user_id", "item_id": "item_id"}


class _Entity(NamedTuple):
    """The user or the item entity as the repository defines it."""

    name: str
    join_key: str
    id_type: IdType


class _Fault(Exception):  # noqa: N818 - caught here, never raised to a caller
    """One thing that is wrong, without its place."""


class Compiled(NamedTuple):
    """The features without fault, every fault, and the spec where there is no fault."""

    features: tuple[Feature, ...]
    faults: list[str]
    spec: FeatureSpec | None


def compile_features(config: FeaturesConfig, definitions: Definitions) -> FeatureSpec:
    """The spec of `config` on those definitions; ConfigurationError with every fault."""
    compiled = check_features(config, definitions)
    if compiled.spec is None:
        raise ConfigurationError(compiled.faults)
    return compiled.spec


def check_features(config: FeaturesConfig, definitions: Definitions) -> Compiled:
    """What `config` and those definitions give, with every fault."""
    return _Compiler(config, definitions).compile()


class _Compiler:
    def __init__(self, config: FeaturesConfig, definitions: Definitions) -> None:
        self._config = config
        self._definitions = definitions
        self._faults: list[str] = []
        self._service = definitions.services.get(config.service)

    def compile(self) -> Compiled:
        """Every list, table and aggregate is looked at, whatever the others are."""
        self._check_repository()
        self._user = self._entity("user", self._config.user_entity)
        self._item = self._entity("item", self._config.item_entity)
        self._check_lists()
        features = [f for role in _ROLES for name in getattr(self._config, role) if (f := self._feature(name, role))]
        entities = {"user": self._user.name, "item": self._item.name}
        for key, fault in [
            *aggregate_faults(self._config, self._definitions, entities),
            *profile_faults(self._config, self._definitions, entities),
        ]:
            self._fault(key, fault)
        spec = None if self._faults else self._spec(features)
        return Compiled(tuple(features), self._faults, spec)

    def _spec(self, features: list[Feature]) -> FeatureSpec:
        return FeatureSpec(
            feast_project=self._definitions.project,
            user_join_key=self._user.join_key,
            item_join_key=self._item.join_key,
            user_id_type=self._user.id_type,
            item_id_type=self._item.id_type,
            entity_key_serialization_version=self._definitions.entity_key_serialization_version,
            features=tuple(features),
        )

    def _fault(self, key: str, text: str) -> None:
        self._faults.append(f"graft.toml: features.{key}: {text}")

    def _check_repository(self) -> None:
        version = self._definitions.entity_key_serialization_version
        if version != SERIALIZATION_VERSION:
            self._faults.append(
                f"feature_store.yaml: entity_key_serialization_version must be {SERIALIZATION_VERSION}, got {version}"
            )
        if self._service is None:
            self._fault("service", _unknown("feature service", self._config.service, self._definitions.services))

    def _entity(self, which: Entity, declared: str | None) -> _Entity:
        """The declared entity, else the one that Feast's definitions give; after a fault one that stands in for it."""
        key = f"{which}_entity"
        try:
            name = self._declared(declared) if declared is not None else self._derived(which)
        except _Fault as fault:
            self._fault(key, str(fault))
            return _Entity(declared or which, f"{which}_id", "str")
        found = self._definitions.entities[name]
        if found.value_type not in _ID_TYPES:
            self._fault(
                key,
                f"entity {name!r} must have the value_type INT64 or STRING in the repository, got {found.value_type}",
            )
        return _Entity(name, found.join_key, _ID_TYPES.get(found.value_type, "str"))

    def _declared(self, name: str) -> str:
        if name not in self._definitions.entities:
            raise _Fault(_unknown("entity", name, self._definitions.entities))
        return name

    def _derived(self, which: str) -> str:
        """The one entity whose join key is user_id (or item_id), else the one named user (or item)."""
        entities, join_key = self._definitions.entities, f"{which}_id"
        keyed = sorted(name for name, entity in entities.items() if entity.join_key == join_key)
        if len(keyed) == 1:
            return keyed[0]
        if which in entities:
            return which
        if keyed:
            raise _Fault(f"{_listed(keyed)} have the join key {join_key}; declare which one it is")
        raise _Fault(
            f"no entity has the join key {join_key} or the name {which}; declare one; "
            f"there is {_listed(sorted(entities)) or 'none'}"
        )

    def _check_lists(self) -> None:
        first: dict[str, str] = {}
        for role in _ROLES:
            for name in getattr(self._config, role):
                if name in first:
                    self._fault(role, f"{name!r} stands in {first[name]} already; a feature has one role")
                first.setdefault(name, role)
        if not first:
            self._fault("dense", "no feature in any list (dense, embedding, categorical, passthrough)")
        for name in self._config.defaults:
            if name not in first:
                self._fault("defaults", f"{name!r} is in no list of features")
        for name in self._config.context:
            if f"context:{name}" not in first:
                self._fault(f"context.{name}", f"'context:{name}' is in no list; add it to one, or to passthrough")

    def _feature(self, name: str, role: Role) -> Feature | None:
        try:
            found = self._described(name, role)
            _check_role(found)
            return found.model_copy(update={"default": self._default(found)})
        except _Fault as fault:
            self._fault(role, str(fault))
            return None

    def _described(self, name: str, role: Role) -> Feature:
        """The feature with its type, without its default."""
        if name in _IDS:
            if role in ("dense", "embedding"):
                raise _Fault(f"{name!r} is an id: categorical or passthrough")
            entity = self._user if name == "user_id" else self._item
            return Feature(name=name, source=_IDS[name], role=role, dtype=entity.id_type, default=None)
        view, colon, field = name.partition(":")
        if not (colon and view and field):
            raise _Fault(f"{name!r} must be user_id, item_id, context:NAME or VIEW:FEATURE")
        return self._from_context(name, field, role) if view == "context" else self._from_view(view, field, role)

    def _from_context(self, name: str, field: str, role: Role) -> Feature:
        declared = self._config.context.get(field)
        if declared is None:
            raise _Fault(f"{name!r} is not declared; add [features.context.{field}] with dtype and default")
        if name in self._config.defaults:
            raise _Fault(f"the default of {name!r} belongs into [features.context.{field}]")
        return Feature(name=name, source="context", role=role, dtype=declared.dtype, default=None)

    def _from_view(self, view: str, field: str, role: Role) -> Feature:
        defined = self._view(view)
        if field not in defined.fields:
            raise _Fault(_unknown(f"feature of view {view!r}", field, defined.fields))
        if self._service is not None and field not in self._service.get(view, ()):
            raise _Fault(f"'{view}:{field}' is not in the feature service {self._config.service!r}; add it there")
        value_type = defined.fields[field].value_type
        if value_type not in DTYPES:
            raise _Fault(f"'{view}:{field}' has the type {value_type}; usable are {_listed(DTYPES)}")
        return Feature(
            name=f"{view}:{field}",
            source="user" if defined.entities == (self._user.name,) else "item",
            role=role,
            dtype=DTYPES[value_type],  # type: ignore[arg-type]  # a plain str to mypy
            default=None,
            view=view,
            feature=field,
            value_type=value_type,
            profile_of=profile_of(self._config, defined.push_source, field),
        )

    def _view(self, name: str) -> ViewDefinition:
        view = self._definitions.views.get(name)
        if view is None:
            raise _Fault(_unknown("feature view", name, self._definitions.views))
        if view.entities not in ((self._user.name,), (self._item.name,)):
            raise _Fault(
                f"view {name!r} must have one entity, {self._user.name!r} or {self._item.name!r}; "
                f"it has {_listed(view.entities)}"
            )
        if not view.online:
            raise _Fault(f"view {name!r} is not served online; set online=True in the repository")
        return view

    def _default(self, feature: Feature) -> Value:
        if feature.source == "context":
            return _checked_default(feature, self._config.context[context_name(feature)].default)
        given = self._config.defaults.get(feature.name)
        if feature.role == "embedding":
            return self._embedding_default(feature, given)
        if given is None:
            is_dense = feature.role == "dense"
            return value_before_examples(feature, self._config, self._definitions) if is_dense else None
        return _checked_default(feature, given)

    def _embedding_default(self, feature: Feature, given: Any) -> Value:
        """Zeros of the field's vector_length, or the default that graft.toml gives; its length is the width."""
        width = self._definitions.views[feature.view].fields[feature.feature].vector_length
        if given is None and not width:
            raise _Fault(
                f"the width of {feature.name!r} is unknown; give vector_length to its Field in the repository, "
                f'or a default of that length: [features.defaults] "{feature.name}" = [0.0, ...]'
            )
        default = [0.0] * width if given is None else _checked_default(feature, given)
        if not isinstance(default, list) or not default or width not in (0, len(default)):
            raise _Fault(f"the default of {feature.name!r} must be a list of {width or 'some'} numbers, got {given!r}")
        return default


def _check_role(feature: Feature) -> None:
    fitting = _FITTING[feature.role]
    if feature.dtype not in fitting:
        raise _Fault(f"{feature.name!r} is {_article(feature.dtype)}; {feature.role} takes {_listed(fitting)}")


def _checked_default(feature: Feature, given: Any) -> Value:
    types: dict[str, tuple[type, ...]] = {"int": (int,), "float": (int, float), "str": (str,), "float_list": (list,)}
    allowed = (int, float) if feature.role == "dense" else types[feature.dtype]
    if isinstance(given, bool) or not isinstance(given, allowed):
        raise _Fault(f"the default of {feature.name!r} must be {_article(feature.dtype)}, got {given!r}")
    if feature.dtype == "float" and isinstance(given, int):
        return float(given)
    return given  # type: ignore[return-value]  # one of the types just checked


def _unknown(kind: str, name: str, known: Any) -> str:
    return f"no {kind} {name!r}; there is {_listed(sorted(known)) or 'none'}"


def _listed(names: Any) -> str:
    return ", ".join(str(name) for name in names)


def _article(dtype: str) -> str:
    return {"int": "an integer", "float": "a number", "str": "a string", "float_list": "a list of numbers"}[dtype]
