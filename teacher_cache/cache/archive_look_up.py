"""What the archive writes beside its examples: the teacher's logits that the cache has of them."""

from collections.abc import Sequence

import numpy as np

from runtime.errors import ServiceUnavailableError
from runtime.outage import Outage
from stream.events import Example
from stream.positions import ArchivedLogits
from teacher_cache.cache.cache import LogitCache


class ArchiveLookUp:
    """Looks examples up in the cache of one generation: its digest stands beside the logits.

    While Redis is away examples are archived without logits: whoever learns the log asks the cache for them.
    """

    def __init__(self, cache: LogitCache, generation: str) -> None:
        self._cache = cache
        self._generation = generation
        self._redis = Outage("redis", "examples are archived without the teacher's logits", stops_work=False)

    def __call__(self, examples: Sequence[Example]) -> list[ArchivedLogits | None]:
        """Of each example what the cache has now; None for a miss."""
        try:
            logit_BT = self._cache.get(self._cache.keys_of(examples)).logit_BT
        except ServiceUnavailableError as error:
            self._redis.failed(error)  # no wait here: the next flush is the next try
            return [None] * len(examples)
        self._redis.ended()
        return [
            None if np.isnan(logits).any() else ArchivedLogits(self._generation, logits.tolist()) for logits in logit_BT
        ]
