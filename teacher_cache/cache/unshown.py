"""Unshown rows: what the teacher thinks of items that a user was not shown, for the learner to distil.

The batch scorer and the backfill make them, because they read the features of users and items: a row has the user of
one impression and the item of another. They wait in Redis under the impression's id, so the learner finds them with
its example and needs neither a store of items nor a random state: same log and same cache, same weights.

    key    graft:unshown:{project}:{generation}:{impression id}
    value  JSON: [[features, in the spec's order], [T logits]] of each row

Shapes: B requests, U unshown rows, T teacher tasks.
"""

import json
from collections.abc import Sequence
from typing import NamedTuple

import mmh3
import numpy as np
from numpy.typing import NDArray

from features.spec import FeatureSpec, Value
from runtime.redis import connect, reaching
from stream.events import EntityId, TeacherRequest
from teacher_cache.cache.cache import UNUSABLE_LOGITS, usable
from teacher_cache.config import UnshownConfig
from teacher_cache.domain.request_scorer import RequestScorer, ScoredRows

_ITEMS = 4_096
"""Items whose newest features are held: 4 MB at 1 kB each."""

STREAM_TTL_SECONDS = 3_600
"""How long the batch scorer's rows wait for the learner, which is seconds behind: an hour covers its restarts. What a
longer wait takes in Redis: docs/decisions/006-distillation.md."""


class UnshownRows(NamedTuple):
    """U rows: their features in the spec's order, and the teacher's finite logits."""

    features: list[list[Value]]
    logit_UT: NDArray[np.float32]


def together(each: Sequence[UnshownRows], tasks: int) -> UnshownRows:
    """The rows of several impressions, in their order; T = `tasks`."""
    features = [row for rows in each for row in rows.features]
    return UnshownRows(features, np.concatenate([np.empty((0, tasks), np.float32), *(r.logit_UT for r in each)]))


class UnshownSampler:
    """Makes unshown rows of teacher requests, in their order. Remembers the last `items` items with their features."""

    def __init__(self, spec: FeatureSpec, config: UnshownConfig, items: int = _ITEMS) -> None:
        self._of_item = [feature.source in ("item", "item_id") for feature in spec.features]
        self._ratio, self._capacity = config.ratio, items
        self._requests: list[TeacherRequest] = []
        self._place: dict[EntityId, int] = {}
        self._next = 0

    def sample(self, requests: Sequence[TeacherRequest]) -> list[TeacherRequest]:
        """The unshown rows of each request: its impression id, user and context with the items of earlier requests.

        A hash of the impression id chooses the items, evenly. While there are few items there are fewer rows: none
        comes twice, and none has the item of the request itself.
        """
        rows: list[TeacherRequest] = []
        for request in requests:
            rows += self._rows(request)
            self._remember(request)
        return rows

    def _rows(self, request: TeacherRequest) -> list[TeacherRequest]:
        if not self._requests:
            return []
        draws = [mmh3.hash64(f"{request.impression_id}/{n}", signed=False)[0] for n in range(self._count(request))]
        drawn = {number % len(self._requests) for number in draws}
        others = [self._requests[place] for place in sorted(drawn)]
        return [self._row(request, other) for other in others if other.item_id != request.item_id]

    def _count(self, request: TeacherRequest) -> int:
        """The ratio, or a whole number beside it, so that the mean over impressions is the ratio."""
        share = mmh3.hash(request.impression_id, signed=False) / 2**32
        return int(self._ratio + share)

    def _row(self, request: TeacherRequest, other: TeacherRequest) -> TeacherRequest:
        columns = zip(self._of_item, request.features, other.features, strict=True)
        features = [of_other if of_item else of_request for of_item, of_request, of_other in columns]
        return request.model_copy(update={"item_id": other.item_id, "features": features})

    def _remember(self, request: TeacherRequest) -> None:
        """Keep the newest features of each item; a new item beyond the capacity takes the place of the oldest one."""
        place = self._place.get(request.item_id)
        if place is not None:
            self._requests[place] = request
        elif len(self._requests) < self._capacity:
            self._place[request.item_id] = len(self._requests)
            self._requests.append(request)
        else:
            del self._place[self._requests[self._next].item_id]
            self._place[request.item_id] = self._next
            self._requests[self._next] = request
            self._next = (self._next + 1) % self._capacity


class UnshownCache:
    """Unshown rows of one generation (`Generation.key`) by impression.

    Every method raises ServiceUnavailableError when Redis does not answer.
    """

    def __init__(
        self,
        redis_url: str,
        generation: str,
        spec: FeatureSpec,
        task_names: Sequence[str],
        ttl_seconds: int,
    ) -> None:
        self._url = redis_url
        self._client = connect(redis_url)
        self._prefix = f"graft:unshown:{generation}:"
        self._widths = (len(spec.features), len(task_names))
        self._ttl_seconds = ttl_seconds

    def put(self, rows: Sequence[TeacherRequest], logit_UT: NDArray[np.float32]) -> None:
        """Keep the rows of each impression in place of those that it had, for `ttl_seconds`."""
        by_impression: dict[str, list[list[list[Value]]]] = {}
        for row, logit_T in zip(rows, logit_UT.tolist(), strict=True):
            by_impression.setdefault(row.impression_id, []).append([row.features, logit_T])
        pipeline = self._client.pipeline(transaction=False)
        for impression_id, value in by_impression.items():
            pipeline.set(self._prefix + impression_id, json.dumps(value, separators=(",", ":")), ex=self._ttl_seconds)
        with reaching(self._url):
            pipeline.execute()

    def get(self, impression_ids: Sequence[str]) -> UnshownRows:
        """The rows of these impressions, in their order; see `get_each`."""
        return together(self.get_each(impression_ids), self._widths[1])

    def get_each(self, impression_ids: Sequence[str]) -> list[UnshownRows]:
        """The rows of each of these impressions.

        An impression with a damaged value has none. Rows whose logits are not `usable` are left out and counted.
        """
        pipeline = self._client.pipeline(transaction=False)
        for impression_id in impression_ids:
            pipeline.get(self._prefix + impression_id)
        with reaching(self._url):
            values = pipeline.execute()
        each = [[] if value is None else _decode(value, *self._widths) for value in values]
        logit_UT = np.array([logit_T for rows in each for _, logit_T in rows], np.float64).reshape(-1, self._widths[1])
        usable_U = usable(logit_UT)
        single_UT = np.where(usable_U[:, None], logit_UT, 0.0).astype(np.float32)
        UNUSABLE_LOGITS.labels("unshown").inc(len(usable_U) - int(usable_U.sum()))
        found, first = [], 0
        for rows in each:
            part = slice(first, first + len(rows))
            features = [features for (features, _), kept in zip(rows, usable_U[part], strict=True) if kept]
            found.append(UnshownRows(features, single_UT[part][usable_U[part]]))
            first = part.stop
        return found

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


class UnshownScorer:
    """Samples and scores the unshown rows of teacher requests, and keeps them."""

    def __init__(self, sampler: UnshownSampler, scorer: RequestScorer, cache: UnshownCache) -> None:
        self._sampler = sampler
        self._scorer = scorer
        self._cache = cache

    def sample(self, requests: Sequence[TeacherRequest]) -> list[TeacherRequest]:
        """The unshown rows of these requests; each request is sampled once, as later rows have its item."""
        return self._sampler.sample(requests)

    def score(self, rows: Sequence[TeacherRequest]) -> ScoredRows | None:
        """The logits of rows that `sample` gave; None when there are none. Again is the same."""
        return self._scorer.score(rows)

    def put(self, scored: ScoredRows) -> None:
        """Keep the rows that `score` returned; again is the same. ServiceUnavailableError: Redis is away."""
        self._cache.put(scored.requests, scored.logit_BT)


def _decode(value: bytes, features: int, tasks: int) -> list[tuple[list[Value], list[float]]]:
    """The rows of one impression; none when the value is not what `put` wrote."""
    try:
        rows = [(list(row), [float(logit) for logit in logit_T]) for row, logit_T in json.loads(value)]
    except (ValueError, TypeError, OverflowError, RecursionError):
        return []
    whole = all(len(row) == features and len(logit_T) == tasks for row, logit_T in rows)
    return rows if whole else []
