"""The student's shape and learning: the `[student]` table of graft.toml, which every version carries."""

from typing import Self

from pydantic import Field, model_validator

from runtime.frozen_model import FrozenModel


class StudentConfig(FrozenModel):
    """Shape and learning of both arms; their shared weights start equal."""

    trunk: list[int] = Field(
        default=[64, 32], min_length=1, description="the widths of the layers that all tasks share"
    )
    cross_layers: int = Field(default=0, ge=0, le=8)
    """Cross layers of DCN-v2 between the inputs and the trunk: they cost a step's time and gained nothing."""
    tower: int = Field(default=16, ge=1, description="the width of each task's own layer")
    embedding_dim: int = Field(default=8, ge=1, description="the width of each categorical column's embedding")
    table_rows: int = Field(default=65_536, ge=2, description="rows of the hashed embedding table; row 0: missing")
    learning_rate: float = Field(
        default=0.01, gt=0, le=10, description="Adam's learning rate, for all weights but the embeddings"
    )
    embedding_learning_rate: float = Field(default=0.05, gt=0, le=10)
    """Row-wise Adagrad's learning rate, for the embeddings; it adapts itself to each row."""
    micro_batch: int = Field(default=32, ge=1, description="new examples that a step of the networks learns")
    replay_batches: int = Field(default=1, ge=0)
    """Micro-batches of past examples added to a step, against forgetting; more double its cost."""
    replay_capacity: int = Field(default=16_384, ge=0)
    """Past examples kept to be replayed, a uniform sample of all."""
    remembered_ids: int = Field(
        default=65_536,
        ge=1_000,
        description="how many users the posterior remembers, and how many items and categories; the oldest leaves",
    )
    seed: int = Field(
        default=7,
        description="seed of first weights, replay and bootstrap: same seed and same log give the same weights",
    )

    @model_validator(mode="after")
    def _replays_what_it_keeps(self) -> Self:
        if self.replay_batches and not self.replay_capacity:
            raise ValueError(f"replay_batches must be 0 with replay_capacity 0, got {self.replay_batches}")
        return self
