"""Which value each input of the teacher gets for one row, from where, and what the teacher makes of it."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from features.spec import Value
from teacher_cache.config import (
    BucketInput,
    ConcatInput,
    DefaultInput,
    HashInput,
    LinearInput,
    LogInput,
    LookupInput,
    TeacherInput,
    VocabularyInput,
    features_of,
)
from teacher_cache.domain.domain_map import DomainMap


class ExplainedInput(NamedTuple):
    """One input of the teacher for one row.

    `value`: what the teacher gets, a list where the input is wide. `feature` and `raw`: the target feature that feeds
    it and its value, of several the names with commas and a list; None for an input without a counterpart. `fell_back`:
    whether the input's default took its place.
    """

    name: str
    value: Any
    kind: str
    feature: str | None
    raw: Value | list[Value]
    transform: str
    fell_back: bool

    def line(self) -> str:
        """As text."""
        if self.feature is None:
            return f"{self.name} = {self.value!r}: the default of every row"
        if self.raw is None:
            return f"{self.name} = {self.value!r}: {self.feature} is missing, so the default"
        back = ", which does not fit, so the default" if self.fell_back else ""
        return f"{self.name} = {self.value!r}: {self.feature} is {self.raw!r}, {self.transform}{back}"


def explained(
    domain_map: DomainMap, inputs: Mapping[str, TeacherInput], columns: Mapping[str, Sequence[Value]]
) -> list[ExplainedInput]:
    """Each input for the one row of `columns`, given as raw values by feature name."""
    mapped, fell_back = domain_map.map_rows(columns)
    found = []
    for name, given in inputs.items():
        features = [] if isinstance(given, DefaultInput) else features_of(given)
        raws = [columns[feature][0] for feature in features]
        value = mapped[name][0].tolist() if hasattr(mapped[name][0], "tolist") else mapped[name][0]
        back = bool(fell_back[name][0]) if name in fell_back else False
        feature, raw = ", ".join(features) or None, raws[0] if len(raws) == 1 else raws or None
        found.append(ExplainedInput(name, value, given.kind, feature, raw, _transform(given), back))
    return found


def _transform(given: TeacherInput) -> str:  # noqa: PLR0911 - one for each kind
    match given:
        case LookupInput():
            return f"looked up in {given.file or 'its table'}"
        case BucketInput():
            return f"its bucket between {', '.join(f'{one:g}' for one in given.boundaries)}"
        case LinearInput():
            bounds = [(word, bound) for word, bound in (("least", given.minimum), ("most", given.maximum))]
            told = "".join(f", at {word} {bound:g}" for word, bound in bounds if bound is not None)
            return f"times {given.multiply:g} plus {given.add:g}{told}"
        case LogInput():
            return f"plus {given.add:g}, the natural logarithm"
        case VocabularyInput():
            return f"its line in {given.file}, the first is {given.first}"
        case ConcatInput():
            return f"joined by {given.separator!r}"
        case HashInput():
            joined = f"joined by {given.separator!r}, " if len(given.features) > 1 else ""
            return f"{joined}hashed into {given.buckets:,} buckets"
        case DefaultInput():
            return "the default of every row"
        case _:
            return "as it is"
