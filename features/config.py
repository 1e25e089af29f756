"""Which features a pair uses: the `[features]` table of graft.toml."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class ContextFeature(BaseModel):
    """A feature that the event or the request carries itself, in its `context`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dtype: Literal["int", "float", "str"]
    default: int | float | str


class AggregateConfig(BaseModel):
    """Running aggregates of one entity's closed examples, pushed to the push source of that name.

    A column is ``count`` (examples), ``sum(TASK)`` or ``mean(TASK)`` (of the labels present; 0 before the first).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    entity: Literal["user", "item"]
    push_source: str
    columns: dict[str, str] = Field(min_length=1)


class FeaturesConfig(BaseModel):
    """Names are `view:feature`, `user_id`, `item_id`, or `context:name`; each stands in one list only.

    Every feature is read at impression time, logged with its example and open to the teacher's domain map; the student
    sees all but the `passthrough` ones. `defaults` gives the value of a feature that an entity does not have. Without
    one, a dense feature is 0, an embedding zeros (its length: `defaults` or the field's `vector_length`), a categorical
    one the reserved value for a miss, and a passthrough one takes the domain map's own default.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    repo: Path = Path("feature_repo")
    service: str
    user_entity: str | None = Field(
        default=None,
        description="Feast's entity of the users; None: the one with the join key user_id, else the one named user",
    )
    item_entity: str | None = Field(
        default=None,
        description="Feast's entity of the items; None: the one with the join key item_id, else the one named item",
    )
    dense: list[str] = []
    categorical: list[str] = []
    embedding: list[str] = []
    passthrough: list[str] = []
    context: dict[str, ContextFeature] = {}
    defaults: dict[str, int | float | str | list[float]] = {}
    aggregates: list[AggregateConfig] = []
