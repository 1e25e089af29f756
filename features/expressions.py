"""What a column of running aggregates holds: `count`, `sum(TASK)`, `mean(TASK)` or `rate(TASK, PRIOR, STRENGTH)`."""

import re
from typing import Literal, NamedTuple, cast

from runtime.errors import ConfigurationError

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
