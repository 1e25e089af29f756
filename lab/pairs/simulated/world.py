"""The truth of the simulated pair: what people of both domains like, and how often they act on it.

Taste has the same effect in both domains. A person's taste depends on country, age and chance, a work's character on
style and chance. A work's quality differs somewhat between the domains: `_KINSHIP` is their correlation.

Shapes: N rows, U people, I works, K = 4 dimensions of taste.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

COUNTRIES = ("brazil", "france", "india", "japan", "kenya")
STYLES = ("ambient", "folk", "jazz", "metal", "pop", "rap")
DEVICES = ("phone", "speaker", "car")
MAX_SECONDS = 5.0  # a preview's length in both domains

_K = 4
_KINSHIP = 0.85
_DEVICE_EFFECTS = np.array([0.3, -0.3, 0.0])

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class People(NamedTuple):
    """The people of one domain; `country` is a row number of COUNTRIES, `age` in years."""

    country: Ints
    age: Ints
    taste_UK: Floats


class Works(NamedTuple):
    """All works; `style` is a row number of STYLES, `tempo` in beats per minute, `sound_IK` a noisy character.

    The qualities add to the logit of an act, in the source and in the target.
    """

    style: Ints
    tempo: Floats
    sound_IK: Floats
    character_IK: Floats
    source_quality: Floats
    target_quality: Floats


class World:
    """Draws people, works and acts. Same seed, same calls, same world."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self._country_taste = self.random.normal(0, 0.7, (len(COUNTRIES), _K))
        self._age_taste = self.random.normal(0, 0.5, _K)
        self._style_character = self.random.normal(0, 1.0, (len(STYLES), _K))

    def people(self, count: int) -> People:
        """`count` people of one domain."""
        country = self.random.integers(len(COUNTRIES), size=count)
        age = self.random.integers(16, 70, size=count)
        own = self.random.normal(0, 0.4, (count, _K))
        taste = self._country_taste[country] + np.outer((age - 43) / 16, self._age_taste) + own
        return People(country, age, taste)

    def works(self, count: int) -> Works:
        """`count` works, each with a quality in both domains."""
        style = self.random.integers(len(STYLES), size=count)
        character = self._style_character[style] + self.random.normal(0, 0.5, (count, _K))
        source = self.random.normal(0, 0.7, count)
        target = _KINSHIP * source + np.sqrt(1 - _KINSHIP**2) * self.random.normal(0, 0.7, count)
        tempo = np.round(self.random.normal(90 + 15 * style, 12).clip(40, 220), 1)
        sound = np.round(character + self.random.normal(0, 0.7, (count, _K)), 3)
        return Works(style, tempo, sound, character, source, target)

    def affinity(self, taste_NK: Floats, character_NK: Floats, quality_N: Floats, device_N: Ints) -> Floats:
        """The logit of an act before its task's own offset, [N]."""
        logit: Floats = (taste_NK * character_NK).sum(1) * 0.6 + quality_N + _DEVICE_EFFECTS[device_N]
        return logit

    def acts(self, logit_N: Floats) -> NDArray[np.bool_]:
        """Whether each row's person acts, drawn with the probability of its logit, [N]."""
        return self.random.random(len(logit_N)) < chance(logit_N)

    def seconds(self, affinity_N: Floats) -> Floats:
        """How long each stays, in (0, MAX_SECONDS)."""
        seconds: Floats = MAX_SECONDS * chance(affinity_N + self.random.normal(0, 0.7, len(affinity_N)))
        return seconds


def chance(logit_N: Floats) -> Floats:
    """The probability that belongs to a logit."""
    result: Floats = 1 / (1 + np.exp(-logit_N))
    return result
