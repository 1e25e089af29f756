"""What is known of the music app's listeners and tracks, in Feast's words."""

from feast import Entity, FeatureService, FeatureView, Field, FileSource, PushSource, ValueType
from feast.types import Array, Float32, Int64, String

user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.STRING)
item = Entity(name="item", join_keys=["item_id"], value_type=ValueType.INT64)


def _table(name: str) -> FileSource:
    return FileSource(name=f"{name}_table", path=f"data/{name}.parquet", timestamp_field="event_timestamp")


# Materialized from the batch tables.
listener = FeatureView(
    name="listener",
    entities=[user],
    schema=[
        Field(name="user_id", dtype=String),
        Field(name="country", dtype=String),
        Field(name="age", dtype=Int64),
    ],
    source=_table("listener"),
)
track = FeatureView(
    name="track",
    entities=[item],
    schema=[
        Field(name="item_id", dtype=Int64),
        Field(name="style", dtype=String),
        Field(name="tempo", dtype=Float32),
        Field(name="sound", dtype=Array(Float32)),
        Field(name="clip", dtype=Int64),
    ],
    source=_table("track"),
)

# Pushed by the stream: running aggregates of the closed examples. Their batch tables are empty.
listener_activity = FeatureView(
    name="listener_activity",
    entities=[user],
    schema=[
        Field(name="user_id", dtype=String),
        Field(name="shown", dtype=Float32),
        Field(name="click_share", dtype=Float32),
        Field(name="mean_dwell", dtype=Float32),
    ],
    source=PushSource(name="listener_activity_push", batch_source=_table("listener_activity")),
)
track_activity = FeatureView(
    name="track_activity",
    entities=[item],
    schema=[
        Field(name="item_id", dtype=Int64),
        Field(name="shown", dtype=Float32),
        Field(name="click_share", dtype=Float32),
        Field(name="mean_dwell", dtype=Float32),
    ],
    source=PushSource(name="track_activity_push", batch_source=_table("track_activity")),
)

ranking = FeatureService(name="ranking", features=[listener, track, listener_activity, track_activity])
