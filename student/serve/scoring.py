"""The scores of one request by one version: read the features, encode, score."""

from collections.abc import Sequence
from typing import NamedTuple

from prometheus_client import Counter

from stream.events import EntityId
from student.serve.requests import ScoreRequest
from student.serve.swap import Serving
from student.versions.numpy_model import Scores

DEGRADED = Counter("graft_scorer_degraded_total", "Replies for which Redis did not answer")


class Scored(NamedTuple):
    """Of one version. `degraded`: Redis did not answer, and stored features that are not in memory took defaults."""

    item_ids: Sequence[EntityId]
    scores: Scores
    degraded: bool


async def scores_of(serving: Serving, request: ScoreRequest) -> Scored:
    """Score the items of a request for its user."""
    item_ids = request["item_ids"]
    rows = await serving.reader.read(request["user_id"], item_ids, request.get("context", {}))
    if rows.degraded:
        DEGRADED.inc()
    return Scored(item_ids, serving.student.score_at(rows.batch.dense_BD, serving.places.of(rows)), rows.degraded)
