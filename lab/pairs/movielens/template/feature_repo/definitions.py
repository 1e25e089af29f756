"""What is known of the users and movies of MovieLens-100K, in Feast's words."""

from feast import Entity, FeatureService, FeatureView, Field, FileSource, PushSource, ValueType
from feast.types import Array, Float32, Int64, String

user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.INT64)
item = Entity(name="item", join_keys=["item_id"], value_type=ValueType.STRING)


def _table(name: str) -> FileSource:
    return FileSource(name=f"{name}_table", path=f"data/{name}.parquet", timestamp_field="event_timestamp")


# Materialized from the batch tables.
user_profile = FeatureView(
    name="user_profile",
    entities=[user],
    schema=[
        Field(name="user_id", dtype=Int64),
        Field(name="age", dtype=Int64),
        Field(name="gender", dtype=String),
        Field(name="occupation", dtype=String),
    ],
    source=_table("user_profile"),
)
item_profile = FeatureView(
    name="item_profile",
    entities=[item],
    schema=[
        Field(name="item_id", dtype=String),
        Field(name="year", dtype=Int64),
        Field(name="genres", dtype=Array(Float32)),
    ],
    source=_table("item_profile"),
)

# Pushed by the stream: running aggregates of the closed examples. Their batch tables are empty.
user_activity = FeatureView(
    name="user_activity",
    entities=[user],
    schema=[
        Field(name="user_id", dtype=Int64),
        Field(name="ratings", dtype=Float32),
        Field(name="mean_rating", dtype=Float32),
        Field(name="mean_like", dtype=Float32),
    ],
    source=PushSource(name="user_activity_push", batch_source=_table("user_activity")),
)
item_activity = FeatureView(
    name="item_activity",
    entities=[item],
    schema=[
        Field(name="item_id", dtype=String),
        Field(name="ratings", dtype=Float32),
        Field(name="mean_rating", dtype=Float32),
        Field(name="mean_like", dtype=Float32),
        Field(name="mean_love", dtype=Float32),
    ],
    source=PushSource(name="item_activity_push", batch_source=_table("item_activity")),
)

ranking = FeatureService(name="ranking", features=[user_profile, item_profile, user_activity, item_activity])
