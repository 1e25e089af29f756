"""A log thinned to a share of its users: the same surface with less traffic."""

import hashlib
import json
from collections.abc import Iterable

from features.ids import EntityId
from lab.study.study_log import StudyLog


class KeptUsers:
    """A share of the users, drawn by `seed`; a larger share of the same seed holds a smaller one.

    At least one user is kept.
    """

    def __init__(self, user_ids: Iterable[EntityId], share: float, seed: int) -> None:
        self._seed = seed
        places = sorted(map(self._place, set(user_ids)))
        self._last = places[max(1, round(share * len(places))) - 1]

    def of(self, user_ids: Iterable[EntityId]) -> list[EntityId]:
        """Those of them that are kept, in their order; ids that the draw did not know are kept in the same share."""
        return [user_id for user_id in user_ids if self._place(user_id) <= self._last]

    def thinned(self, log: StudyLog) -> StudyLog:
        """The examples of the kept users. Their features are as they were logged, running aggregates too."""
        kept = set(self.of(dict.fromkeys(example.user_id for example in log.examples)))
        records = [record for record in log.records if record.example.user_id in kept]
        return log._replace(records=records, logged=None)

    def _place(self, user_id: EntityId) -> bytes:
        """Where a user stands in a random order."""
        return hashlib.blake2b(json.dumps([self._seed, user_id]).encode(), digest_size=8).digest()
