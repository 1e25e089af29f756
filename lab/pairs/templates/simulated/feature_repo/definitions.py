"""What is known of the music app's listeners and tracks, in Feast's words."""

from collections.abc import Mapping

from feast import Entity, FeatureService, FeatureView, Field, FileSource, PushSource, ValueType
from feast.types import Array, FeastType, Float32, Int64, String, from_value_type

user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.STRING)
item = Entity(name="item", join_keys=["item_id"], value_type=ValueType.INT64)


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


listener = materialized("listener", user, country=String, age=Int64)
track = materialized("track", item, style=String, tempo=Float32, sound=Array(Float32), clip=Int64)
listener_activity = pushed("listener_activity", user, shown=Float32, click_share=Float32, mean_dwell=Float32)
track_activity = pushed("track_activity", item, shown=Float32, click_share=Float32, mean_dwell=Float32)
listener_teacher = pushed("listener_teacher", user, play=Float32, watch=Float32)
track_teacher = pushed("track_teacher", item, play=Float32, watch=Float32)

ranking = FeatureService(
    name="ranking",
    features=[listener, track, listener_activity, track_activity, listener_teacher, track_teacher],
)
