"""What is known of the users and movies of MovieLens-100K, in Feast's words."""

from collections.abc import Mapping

from feast import Entity, FeatureService, FeatureView, Field, FileSource, PushSource, ValueType
from feast.types import Array, FeastType, Float32, Int64, String, from_value_type

user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.INT64)
item = Entity(name="item", join_keys=["item_id"], value_type=ValueType.STRING)


def _table(name: str) -> FileSource:
    return FileSource(name=f"{name}_table", path=f"data/{name}.parquet", timestamp_field="event_timestamp")


def _view(name: str, entity: Entity, source: FileSource | PushSource, columns: Mapping[str, FeastType]) -> FeatureView:
    key = Field(name=entity.join_key, dtype=from_value_type(entity.value_type))
    schema = [key, *(Field(name=column, dtype=dtype) for column, dtype in columns.items())]
    return FeatureView(name=name, entities=[entity], schema=schema, source=source)


def materialized(name: str, entity: Entity, **columns: FeastType) -> FeatureView:
    """A view that `graft features materialize` fills from its batch table."""
    return _view(name, entity, _table(name), columns)


def pushed(name: str, entity: Entity, **columns: FeastType) -> FeatureView:
    """A view that is pushed: of running aggregates by the stream, of profiles by the batch scorer.

    `graft features collect` fills its batch table.
    """
    return _view(name, entity, PushSource(name=f"{name}_push", batch_source=_table(name)), columns)


user_profile = materialized("user_profile", user, age=Int64, gender=String, occupation=String)
item_profile = materialized("item_profile", item, year=Int64, genres=Array(Float32))
user_activity = pushed("user_activity", user, ratings=Float32, mean_rating=Float32, mean_like=Float32)
item_activity = pushed(
    "item_activity", item, ratings=Float32, mean_rating=Float32, mean_like=Float32, mean_love=Float32
)
user_teacher = pushed("user_teacher", user, like=Float32, rating=Float32)
item_teacher = pushed("item_teacher", item, like=Float32, rating=Float32, vector=Array(Float32))

ranking = FeatureService(
    name="ranking", features=[user_profile, item_profile, user_activity, item_activity, user_teacher, item_teacher]
)
