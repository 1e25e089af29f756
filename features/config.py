"""Which features a project uses: the `[features]` table of graft.toml, and the expressions of its aggregates."""

import re
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, cast

from pydantic import AfterValidator, Field

from features.spec import Entity
from runtime.errors import ConfigurationError
from runtime.frozen_model import FrozenModel

ContextDtype = Literal["int", "float", "str"]


class ContextFeature(FrozenModel):
    """A feature that the event or the request carries itself, in its `context`."""

    dtype: ContextDtype = Field(description="its type in events and requests")
    default: int | float | str = Field(description="its value when an event or a request does not have it")


Kind = Literal["count", "sum", "mean", "rate"]

_FORMS = "count, sum(TASK), mean(TASK) or rate(TASK, PRIOR, STRENGTH)"
_TASK = r"\s*([a-z][a-z0-9_]*)\s*"
_EXPRESSION = re.compile(rf"(count)|(sum|mean)\({_TASK}\)|(rate)\({_TASK},([^,()]+),([^,()]+)\)")
_LARGEST = 1e12  # of a prior and a strength: their product stays far from what a double can hold


class Expression(NamedTuple):
    """`task` is "" for a count of examples; `prior` and `strength` are 0 unless it is a rate."""

    kind: Kind
    task: str
    prior: float = 0.0
    strength: float = 0.0

    def value(self, examples: float, total: float, labels: float) -> float:
        """Its value over `examples` examples, of which `labels` have a label of its task, `total` in sum.

        A rate is the mean of these labels and of `strength` more that are all `prior`, (total + prior * strength) /
        (labels + strength): additive smoothing. It is written so that without labels it is the prior itself.
        """
        if self.kind == "count":
            return examples
        if self.kind == "sum":
            return total
        if self.kind == "mean":
            return total / labels if labels else 0.0
        return self.prior + (total - self.prior * labels) / (labels + self.strength)


def parse_expression(text: str) -> Expression:
    """The expression of one column; ConfigurationError for anything else."""
    match = _EXPRESSION.fullmatch(text.strip())
    if match is None:
        raise ConfigurationError([f"must be {_FORMS}, got {text!r}"])
    if match[4] is None:
        return Expression(cast("Kind", match[1] or match[2]), match[3] or "")
    prior, strength = _number(match[6]), _number(match[7])
    if prior is None or not -_LARGEST <= prior <= _LARGEST:
        raise ConfigurationError([f"{text!r}: PRIOR must be a number in [-1e12, 1e12], got {match[6].strip()}"])
    if strength is None or not 0 < strength <= _LARGEST:
        raise ConfigurationError([f"{text!r}: STRENGTH must be a number in (0, 1e12], got {match[7].strip()}"])
    return Expression("rate", match[5], prior, strength)


def _number(text: str) -> float | None:
    """The number that a text is, which may be infinite or NaN; None where it is none."""
    try:
        return float(text)
    except ValueError:
        return None


def _is_expression(text: str) -> str:
    parse_expression(text)
    return text


class AggregateConfig(FrozenModel):
    """Running aggregates of one entity's closed examples, pushed to the push source of that name.

    A column is ``count`` (examples), ``sum(TASK)``, ``mean(TASK)`` (of the labels present; 0 before the first) or
    ``rate(TASK, PRIOR, STRENGTH)`` (the mean of the labels present and STRENGTH more that are all PRIOR).
    """

    entity: Entity = Field(description="whose examples are aggregated")
    push_source: str = Field(description="Feast's push source that receives the values")
    half_life_seconds: float | None = Field(
        default=None,
        gt=0,
        le=3_155_760_000,
        description="the event time in which an example loses half of its weight; none: every example counts in full "
        "for ever",
    )
    columns: dict[str, Annotated[str, AfterValidator(_is_expression)]] = Field(
        min_length=1,
        description="each column of the view, and what it is: `count`, `sum(TASK)`, `mean(TASK)` or "
        "`rate(TASK, PRIOR, STRENGTH)`",
    )


class ProfileConfig(FrozenModel):
    """Profiles of one entity's ids, pushed to the push source of that name: means of what the teacher says of them.

    The mean of a user is taken over reference items, that of an item over reference users. They are drawn once from the
    ids of the batch tables. Context and pushed features are missing in these rows, so a profile follows from the batch
    tables and the teacher alone.
    """

    entity: Entity = Field(description="whose profiles they are")
    push_source: str = Field(description="Feast's push source that receives the values")
    references: int = Field(
        default=64,
        ge=1,
        le=10_000,
        description="how many items the mean of a user is taken over, or how many users the mean of an item",
    )
    columns: dict[str, str] = Field(
        min_length=1, description="each column of the view, and the teacher task or teacher vector whose mean it is"
    )


class FeaturesConfig(FrozenModel):
    """Names are `view:feature`, `user_id`, `item_id`, or `context:name`; each stands in one list only.

    Every feature is read at impression time, logged with its example and open to the teacher's domain map; the student
    sees all but the `passthrough` ones. `defaults` gives the value of a feature that an entity does not have. Without
    one, a dense feature is 0, an embedding zeros (its length: `defaults` or the field's `vector_length`), a categorical
    one the reserved value for a miss, and a passthrough one takes the domain map's own default.
    """

    repo: Path = Field(default=Path("feature_repo"), description="the folder of the Feast repository")
    service: str = Field(description="the feature service: its views hold every stored feature that is named below")
    user_entity: str | None = Field(
        default=None,
        description="Feast's entity of the users; none: the one with the join key user_id, else the one named user",
    )
    item_entity: str | None = Field(
        default=None,
        description="Feast's entity of the items; none: the one with the join key item_id, else the one named item",
    )
    dense: list[str] = Field(
        default=[], description="numbers that the student sees, normalised by their running moments"
    )
    categorical: list[str] = Field(default=[], description="texts and integers that the student embeds by their hash")
    embedding: list[str] = Field(default=[], description="lists of numbers, of which each element is a dense column")
    passthrough: list[str] = Field(default=[], description="features for the teacher alone")
    context: dict[str, ContextFeature] = Field(default={})
    defaults: dict[str, int | float | str | list[float]] = Field(
        default={}, description="each feature's value for an entity that does not have the feature"
    )
    aggregates: list[AggregateConfig] = Field(default=[])
    profiles: list[ProfileConfig] = Field(default=[])
