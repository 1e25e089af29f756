"""Every type that a reader decodes; integer users, string items. Named like one of graft's own packages."""

from datetime import timedelta

from feast import Entity, FeatureService, FeatureView, Field, FileSource, PushSource, ValueType
from feast.types import Array, Bool, Float32, Float64, Int32, Int64, String

user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.INT64)
item = Entity(name="item", join_keys=["item_code"], value_type=ValueType.STRING)

users = FeatureView(
    name="users",
    entities=[user],
    ttl=timedelta(days=0),
    schema=[
        Field(name="age", dtype=Int64),
        Field(name="level", dtype=Int32),
        Field(name="score", dtype=Float32),
        Field(name="income", dtype=Float64),
        Field(name="member", dtype=Bool),
        Field(name="city", dtype=String),
        Field(name="taste", dtype=Array(Float32), vector_length=3),
        Field(name="taste64", dtype=Array(Float64)),
    ],
    source=FileSource(name="users_file", path="data/users.parquet", timestamp_field="event_timestamp"),
)
items = FeatureView(
    name="items",
    entities=[item],
    ttl=timedelta(days=0),
    schema=[
        Field(name="year", dtype=Int64),
        Field(name="price", dtype=Float32),
        Field(name="genre", dtype=String),
        Field(name="vector", dtype=Array(Float32), vector_length=40),
    ],
    source=FileSource(name="items_file", path="data/items.parquet", timestamp_field="event_timestamp"),
)
user_history = FeatureView(
    name="user_history",
    entities=[user],
    ttl=timedelta(days=0),
    schema=[
        Field(name="shown", dtype=Int64),
        Field(name="like_rate", dtype=Float32),
        Field(name="rating_sum", dtype=Float64),
    ],
    source=PushSource(
        name="user_history_push",
        batch_source=FileSource(
            name="user_history_file", path="data/user_history.parquet", timestamp_field="event_timestamp"
        ),
    ),
)
item_history = FeatureView(
    name="item_history",
    entities=[item],
    ttl=timedelta(days=0),
    schema=[Field(name="shown", dtype=Int64), Field(name="like_rate", dtype=Float32)],
    source=PushSource(
        name="item_history_push",
        batch_source=FileSource(
            name="item_history_file", path="data/item_history.parquet", timestamp_field="event_timestamp"
        ),
    ),
)
user_taught = FeatureView(
    name="user_taught",
    entities=[user],
    ttl=timedelta(days=0),
    schema=[Field(name="like", dtype=Float32)],
    source=PushSource(
        name="user_taught_push",
        batch_source=FileSource(
            name="user_taught_file", path="data/user_taught.parquet", timestamp_field="event_timestamp"
        ),
    ),
)
item_taught = FeatureView(
    name="item_taught",
    entities=[item],
    ttl=timedelta(days=0),
    schema=[Field(name="like", dtype=Float32), Field(name="vector", dtype=Array(Float32), vector_length=2)],
    source=PushSource(
        name="item_taught_push",
        batch_source=FileSource(
            name="item_taught_file", path="data/item_taught.parquet", timestamp_field="event_timestamp"
        ),
    ),
)
student = FeatureService(name="student", features=[users, items, user_history, item_history, user_taught, item_taught])
narrow = FeatureService(name="narrow", features=[users[["age"]], items])
