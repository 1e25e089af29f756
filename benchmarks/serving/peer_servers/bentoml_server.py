"""BentoML: one worker; started by ``bentoml serve``."""

from typing import Any

import bentoml

from benchmarks.serving.peer_servers.scoring import PeerScorer


@bentoml.service(workers=1)
class Scores:
    def __init__(self) -> None:
        self.peer = PeerScorer()

    @bentoml.api(route="/score")
    def score(self, user_id: int, item_ids: list[int], context: dict[str, int]) -> dict[str, Any]:
        return self.peer.score({"user_id": user_id, "item_ids": item_ids, "context": context})
