"""Where the teacher is and how target features feed it: the `[teacher]` table of graft.toml.

Every input has a `default` in the teacher's own values: for a row whose feature is missing, unknown to the lookup table
or beyond the tensor's type. A scalar fills an input that takes n elements.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Scalar = int | float | str


class _Input(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DefaultInput(_Input):
    """A teacher input without a counterpart in the target: the same value for every row."""

    kind: Literal["default"] = "default"
    default: int | float | str | list[float]


class FeatureInput(_Input):
    """A target feature as it is, under the teacher's name."""

    kind: Literal["feature"] = "feature"
    feature: str
    default: int | float | str | list[float]


class LookupInput(_Input):
    """A target feature's value looked up in a table: inline, or a JSON object in a file of the project folder.

    The feature is a text or an integer; an integer's key is its decimal digits.
    """

    kind: Literal["lookup"] = "lookup"
    feature: str
    table: dict[str, int | float | str] | None = None
    file: Path | None = None
    default: int | float | str


class BucketInput(_Input):
    """A number as the code of its bucket: `codes[i]` for boundaries[i-1] <= x < boundaries[i]."""

    kind: Literal["bucket"] = "bucket"
    feature: str
    boundaries: list[float] = Field(min_length=1)
    codes: list[int | float] = Field(min_length=2)
    default: int | float


class LinearInput(_Input):
    """`multiply * x + add` of a number. An integer input takes an integer feature and whole factors only."""

    kind: Literal["linear"] = "linear"
    feature: str
    multiply: float = 1.0
    add: float = 0.0
    default: float


TeacherInput = Annotated[
    DefaultInput | FeatureInput | LookupInput | BucketInput | LinearInput, Field(discriminator="kind")
]


class TeacherTask(BaseModel):
    """One output of the teacher: a logit (binary) or a value in the label's unit (regression)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    kind: Literal["binary", "regression"]
    output: str = Field(description="name of the output tensor, of shape [B] or [B, 1]")


class TeacherConfig(BaseModel):
    """The teacher, used exactly as it is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: str = Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")
    onnx: Path
    tasks: list[TeacherTask] = Field(min_length=1)
    inputs: dict[str, TeacherInput]
    ttl_seconds: int = Field(default=30 * 86_400, ge=1, description="age at which a cached logit is dropped by Redis")
    every_seconds: float = Field(default=1.0, gt=0, description="wall clock between two passes of the batch scorer")


class UnshownConfig(BaseModel):
    """Pairs that the teacher scores although nobody was shown them: users of impressions, with items of others."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ratio: float = Field(default=0.0, ge=0, le=64, description="pairs per impression; 0: none")
