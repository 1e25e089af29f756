"""LitServe: one worker, without batching."""

import os
from typing import Any

import litserve

from benchmarks.serving.peer_servers.scoring import PeerScorer


class Api(litserve.LitAPI):
    def setup(self, device: str) -> None:  # noqa: ARG002 - LitServe's signature
        self.peer = PeerScorer()

    def predict(self, x: dict[str, Any]) -> dict[str, Any]:
        return self.peer.score(x)


if __name__ == "__main__":
    server = litserve.LitServer(Api(api_path="/score"), accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port=int(os.environ["PEER_PORT"]), generate_client_file=False, log_level="warning")
