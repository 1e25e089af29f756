"""Every fault of `[features]` against a repository is found, and all of them at once."""

from typing import Any

import pytest

from features.config import FeaturesConfig
from features.repo.compiler import compile_features
from features.repo.definitions import Definitions, EntityDefinition, FieldDefinition, ViewDefinition
from runtime.errors import ConfigurationError

VIEWS = {
    "users": ViewDefinition(
        ("user",),
        {
            "age": FieldDefinition("INT64"),
            "city": FieldDefinition("STRING"),
            "taste": FieldDefinition("FLOAT_LIST"),
            "style": FieldDefinition("FLOAT_LIST", vector_length=2),
            "joined": FieldDefinition("UNIX_TIMESTAMP"),
        },
    ),
    "history": ViewDefinition(
        ("user",),
        {"shown": FieldDefinition("INT64"), "rate": FieldDefinition("FLOAT")},
        push_source="history_push",
        timestamp_field="event_timestamp",
    ),
    "items": ViewDefinition(("item",), {"price": FieldDefinition("FLOAT"), "secret": FieldDefinition("FLOAT")}),
    "hidden": ViewDefinition(("user",), {"x": FieldDefinition("FLOAT")}, online=False),
    "both": ViewDefinition(("user", "item"), {"x": FieldDefinition("FLOAT")}),
}
SERVICE = {name: frozenset(view.fields) - {"secret"} for name, view in VIEWS.items()}
HISTORY = {"entity": "user", "push_source": "history_push", "columns": {"shown": "count", "rate": "mean(like)"}}


def definitions(**changes: Any) -> Definitions:
    entities = {"user": EntityDefinition("user_id", "INT64"), "item": EntityDefinition("item_id", "STRING")}
    return Definitions(
        **{
            "project": "pair",
            "entity_key_serialization_version": 3,
            "entities": entities,
            "views": VIEWS,
            "services": {"student": SERVICE},
            **changes,
        }
    )


def faults(config: dict[str, Any], **changes: Any) -> list[str]:
    with pytest.raises(ConfigurationError) as error:
        compile_features(FeaturesConfig.model_validate({"service": "student", **config}), definitions(**changes))
    return list(error.value.faults)


@pytest.mark.parametrize(
    ("config", "fault"),
    [
        (
            {"dense": ["users:agee"]},
            "dense: no feature of view 'users' 'agee'; there is age, city, joined, style, taste",
        ),
        ({"dense": ["user:age"]}, "dense: no feature view 'user'; there is both, hidden, history, items, users"),
        ({"dense": ["age"]}, "dense: 'age' must be user_id, item_id, context:NAME or VIEW:FEATURE"),
        ({"dense": ["users:"]}, "dense: 'users:' must be user_id, item_id, context:NAME or VIEW:FEATURE"),
        ({"dense": ["items:secret"]}, "dense: 'items:secret' is not in the feature service 'student'; add it there"),
        ({"dense": ["users:city"]}, "dense: 'users:city' is a string; dense takes int, float"),
        ({"dense": ["users:style"]}, "dense: 'users:style' is a list of numbers; dense takes int, float"),
        ({"embedding": ["users:age"]}, "embedding: 'users:age' is an integer; embedding takes float_list"),
        ({"categorical": ["users:style"]}, "categorical: 'users:style' is a list of numbers; categorical takes"),
        ({"dense": ["user_id"]}, "dense: 'user_id' is an id: categorical or passthrough"),
        (
            {"categorical": ["users:joined"]},
            "categorical: 'users:joined' has the type UNIX_TIMESTAMP; usable are FLOAT",
        ),
        ({"dense": ["hidden:x"]}, "dense: view 'hidden' is not served online; set online=True in the repository"),
        ({"dense": ["both:x"]}, "dense: view 'both' must have one entity, 'user' or 'item'; it has user, item"),
        ({"dense": ["context:hour"]}, "dense: 'context:hour' is not declared; add [features.context.hour] with"),
        ({"embedding": ["users:taste"]}, "embedding: the width of 'users:taste' is unknown; give vector_length"),
        (
            {"embedding": ["users:style"], "defaults": {"users:style": [0.0]}},
            "embedding: the default of 'users:style' must be a list of 2 numbers, got [0.0]",
        ),
        (
            {"embedding": ["users:taste"], "defaults": {"users:taste": []}},
            "embedding: the default of 'users:taste' must be a list of some numbers, got []",
        ),
        (
            {"dense": ["users:age"], "categorical": ["users:age"]},
            "categorical: 'users:age' stands in dense already; a feature has one role",
        ),
        (
            {"dense": ["users:age"], "defaults": {"users:age": "old"}},
            "dense: the default of 'users:age' must be an integer, got 'old'",
        ),
        (
            {"categorical": ["users:city"], "defaults": {"users:city": 3}},
            "categorical: the default of 'users:city' must be a string, got 3",
        ),
        ({"dense": ["users:age"], "defaults": {"users:city": "x"}}, "defaults: 'users:city' is in no list of features"),
        (
            {"dense": ["context:hour"], "context": {"hour": {"dtype": "int", "default": "noon"}}},
            "dense: the default of 'context:hour' must be an integer, got 'noon'",
        ),
        (
            {
                "dense": ["context:hour"],
                "context": {"hour": {"dtype": "int", "default": 0}},
                "defaults": {"context:hour": 1},
            },
            "dense: the default of 'context:hour' belongs into [features.context.hour]",
        ),
        (
            {"dense": ["users:age"], "context": {"hour": {"dtype": "int", "default": 0}}},
            "context.hour: 'context:hour' is in no list; add it to one, or to passthrough",
        ),
        ({}, "dense: no feature in any list (dense, embedding, categorical, passthrough)"),
        ({"dense": ["users:age"], "service": "nobody"}, "service: no feature service 'nobody'; there is student"),
        ({"dense": ["items:price"], "user_entity": "usr"}, "user_entity: no entity 'usr'; there is item, user"),
        (
            {"dense": ["users:age"], "aggregates": [{**HISTORY, "push_source": "pushed"}]},
            "aggregates.pushed: no push source of a view 'pushed'; there is history_push",
        ),
        (
            {"dense": ["users:age"], "aggregates": [{**HISTORY, "columns": {"shown": "count", "extra": "count"}}]},
            "aggregates.history_push: its columns must be the features of view 'history', which are written whole: ",
        ),
        (
            {"dense": ["users:age"], "aggregates": [{**HISTORY, "entity": "item"}]},
            "aggregates.history_push: view 'history' must have the entity 'item'; it has user",
        ),
        (
            {"dense": ["users:age"], "aggregates": [{**HISTORY, "columns": {"shown": "mean(like)", "rate": "count"}}]},
            "aggregates.history_push.columns.shown: mean(like) needs a field of type FLOAT, DOUBLE; it is INT64",
        ),
        (
            {"dense": ["users:age"], "aggregates": [{**HISTORY, "half_life_seconds": 60}]},
            "aggregates.history_push.columns.shown: count with a half-life needs a field of type FLOAT, DOUBLE; it is",
        ),
        (
            {"dense": ["users:age"], "aggregates": [HISTORY, HISTORY]},
            "aggregates.history_push: stands twice; one table feeds a push source",
        ),
    ],
)
def test_a_fault_names_its_key_the_value_and_what_is_allowed(config, fault):
    found = faults(config)

    assert any(text.startswith(f"graft.toml: features.{fault}") for text in found), found


def test_a_rate_without_examples_is_its_prior_unless_a_default_is_given():
    columns = {"shown": "count", "rate": "rate(like, 0.3, 5)"}
    config = {"dense": ["history:rate", "history:shown"], "aggregates": [{**HISTORY, "columns": columns}]}

    for given, expected in ({}, [0.3, 0.0]), ({"history:rate": 0.5}, [0.5, 0.0]):
        features = FeaturesConfig.model_validate({"service": "student", **config, "defaults": given})
        assert [f.default for f in compile_features(features, definitions()).features] == expected


def test_all_faults_are_reported_at_once():
    config = {"dense": ["users:agee", "users:city"], "embedding": ["users:taste"], "defaults": {"x": 1}}

    assert len(faults(config, entity_key_serialization_version=2, services={})) == 6


def test_an_entity_needs_a_type_that_ids_have():
    entities = {"user": EntityDefinition("user_id", "UNKNOWN"), "item": EntityDefinition("item_id", "DOUBLE")}

    rule = "must have the value_type INT64 or STRING in the repository, got"

    assert faults({"dense": ["users:age"]}, entities=entities) == [
        f"graft.toml: features.user_entity: entity 'user' {rule} UNKNOWN",
        f"graft.toml: features.item_entity: entity 'item' {rule} DOUBLE",
    ]


def test_the_views_entity_decides_between_user_and_item_whatever_they_are_called():
    entities = {"viewer": EntityDefinition("vid", "STRING"), "track": EntityDefinition("tid", "INT64")}
    views = {
        "viewers": ViewDefinition(("viewer",), {"age": FieldDefinition("INT32")}),
        "tracks": ViewDefinition(("track",), {"bpm": FieldDefinition("DOUBLE")}),
    }
    config = FeaturesConfig(
        service="s",
        user_entity="viewer",
        item_entity="track",
        dense=["tracks:bpm", "viewers:age"],
        categorical=["user_id"],
    )
    services = {"s": {"viewers": frozenset({"age"}), "tracks": frozenset({"bpm"})}}

    spec = compile_features(config, definitions(entities=entities, views=views, services=services))

    assert [(f.name, f.source, f.dtype) for f in spec.features] == [
        ("tracks:bpm", "item", "float"),
        ("viewers:age", "user", "int"),
        ("user_id", "user_id", "str"),
    ]
    assert (spec.user_join_key, spec.item_join_key, spec.item_id_type) == ("vid", "tid", "int")


def entity_names(entities: dict[str, EntityDefinition], **declared: str) -> tuple[str, str]:
    """The join keys of the user and the item entity that are found."""
    config = FeaturesConfig(service="student", categorical=["user_id", "item_id"], **declared)
    spec = compile_features(config, definitions(entities=entities))
    return spec.user_join_key, spec.item_join_key


READER, BOOK = EntityDefinition("user_id", "STRING"), EntityDefinition("item_id", "INT64")
USER, ITEM = EntityDefinition("uid", "STRING"), EntityDefinition("iid", "STRING")


@pytest.mark.parametrize(
    ("entities", "declared", "keys"),
    [
        ({"reader": READER, "book": BOOK}, {}, ("user_id", "item_id")),
        ({"reader": READER, "book": BOOK, "user": USER, "item": ITEM}, {}, ("user_id", "item_id")),
        ({"user": USER, "item": ITEM, "shop": EntityDefinition("shop_id", "INT64")}, {}, ("uid", "iid")),
        ({"reader": READER, "book": BOOK, "user": USER}, {"user_entity": "user"}, ("uid", "item_id")),
        ({"one": READER, "two": READER, "user": USER, "item": ITEM}, {}, ("uid", "iid")),
    ],
)
def test_an_entity_is_the_declared_one_else_that_of_the_join_key_else_that_of_the_name(entities, declared, keys):
    assert entity_names(entities, **declared) == keys


def test_entities_that_cannot_be_told_are_to_be_declared():
    entities = {"reader": EntityDefinition("rid", "STRING"), "book": BOOK, "page": BOOK}

    user, item = faults({"categorical": ["user_id"]}, entities=entities)
    assert user.startswith("graft.toml: features.user_entity: no entity has the join key user_id or the name user; ")
    assert user.endswith("declare one; there is book, page, reader")
    assert item == ("graft.toml: features.item_entity: book, page have the join key item_id; declare which one it is")


def test_a_repository_without_entities_says_so():
    assert faults({"categorical": ["user_id"]}, entities={})[0].endswith("declare one; there is none")
