"""FastAPI on uvicorn."""

import os
from typing import Any

import uvicorn
from fastapi import FastAPI

from benchmarks.serving.peer_servers.scoring import PeerScorer

app, peer = FastAPI(), PeerScorer()


@app.post("/score")
def score(body: dict[str, Any]) -> dict[str, Any]:
    return peer.score(body)


uvicorn.run(app, port=int(os.environ["PEER_PORT"]), log_level="warning", access_log=False)
