"""The base of what is read from a file or a message and not changed after: configuration, manifests, records."""

from pydantic import BaseModel, ConfigDict


class FrozenModel(BaseModel):
    """Checked when it is made, frozen then; an unknown key is a fault."""

    model_config = ConfigDict(frozen=True, extra="forbid")
