"""Users and items, and the ids that they may have."""

from typing import Literal

_INT64_MIN, _INT64_END = -(2**63), 2**63

Entity = Literal["user", "item"]
EntityId = int | str
IdType = Literal["int", "str"]


def usable_id(value: EntityId, id_type: IdType) -> EntityId | None:
    """The id if it can be a join key of that type, a signed 64-bit integer or a string; else None."""
    if id_type == "str":
        return value if isinstance(value, str) else None
    return value if isinstance(value, int) and _INT64_MIN <= value < _INT64_END else None
