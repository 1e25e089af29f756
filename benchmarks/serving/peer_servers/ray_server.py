"""Ray Serve: one replica."""

import os
import time
from typing import Any

import ray
from ray import serve
from starlette.requests import Request

from benchmarks.serving.peer_servers.scoring import PeerScorer


@serve.deployment(num_replicas=1, max_ongoing_requests=32)
class Scores:
    def __init__(self) -> None:
        self.peer = PeerScorer()

    async def __call__(self, request: Request) -> dict[str, Any]:
        return self.peer.score(await request.json())


if __name__ == "__main__":
    ray.init(include_dashboard=False, num_cpus=2, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": int(os.environ["PEER_PORT"])})
    serve.run(Scores.bind(), route_prefix="/score")
    while True:
        time.sleep(60)
