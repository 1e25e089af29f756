"""Which context a logit is of: a digest of the context features that feed the teacher, for the key of the logit.

The values are the features as they were logged: the teacher saw these, and the learner has them in its example. A
feature's values have one type there (features/online/reader.py), so 3 and 3.0 are two contexts. Other context features
move no logit and are not in the digest. See docs/decisions/023-context-in-the-key.md.
"""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from json import JSONEncoder
from operator import itemgetter
from typing import Self

from features.spec import Feature, FeatureSpec, Value
from teacher_cache.config import DefaultInput, TeacherConfig, features_of

CONTEXT_DIGITS = 16
"""Of a context's digest: hexadecimal ones."""

_REMEMBERED = 4_096  # contexts, about 1 MB: a digest takes 5 us, a look 1 us
_JSON = JSONEncoder(sort_keys=True, separators=(",", ":"))  # ASCII, floats by their shortest digits: equal everywhere


class ContextKey:
    """Tells the contexts of rows apart by those of their `features` that have these `names`."""

    def __init__(self, names: Collection[str], features: Sequence[Feature]) -> None:
        self._places = {feature.name: n for n, feature in enumerate(features) if feature.name in names}
        self._digests: dict[str, str] = {}

    @classmethod
    def seen_by(cls, config: TeacherConfig, spec: FeatureSpec) -> Self:
        """Of the contexts that the teacher sees through its domain map."""
        return cls(context_features(config, spec), spec.features)

    def of(self, features: Sequence[Value]) -> str:
        """The digest of a row's context; empty where the teacher sees no context."""
        if not self._places:
            return ""
        # An example of another spec may have fewer features; nothing learns from it.
        return context_digest({name: features[n] for name, n in self._places.items() if n < len(features)})

    def of_each(self, rows: Sequence[Sequence[Value]]) -> list[str]:
        """`of` each of these rows; those of contexts that come again are remembered."""
        if not self._places:
            return [""] * len(rows)
        try:
            values = list(map(itemgetter(*self._places.values()), rows))
        except IndexError:
            return list(map(self.of, rows))
        told = list(map(repr, values))  # tells apart what a digest tells apart: 1, 1.0 and -0.0
        digests = list(map(self._digests.get, told))
        for n, digest in enumerate(digests):
            if digest is None:
                digests[n] = self._digest(told[n], rows[n])
        return digests  # type: ignore[return-value] # none is None now

    def _digest(self, told: str, features: Sequence[Value]) -> str:
        """That of a row; remembered."""
        if len(self._digests) >= _REMEMBERED:
            self._digests.clear()
        digest = self._digests[told] = self.of(features)
        return digest


NO_CONTEXT = ContextKey((), ())
"""Of a teacher that sees no context."""


def context_features(config: TeacherConfig, spec: FeatureSpec) -> list[str]:
    """The names of the context features that feed the teacher, sorted."""
    inputs = [given for given in config.inputs.values() if not isinstance(given, DefaultInput)]
    fed = {name for given in inputs for name in features_of(given)}
    return sorted(feature.name for feature in spec.features if feature.source == "context" and feature.name in fed)


def context_digest(values: Mapping[str, Value]) -> str:
    """Names a context by its features' values, of which None is as good as absent. 16 hexadecimal digits."""
    present = {name: value for name, value in values.items() if value is not None}
    return hashlib.sha256(_JSON.encode(present).encode()).hexdigest()[:CONTEXT_DIGITS]
