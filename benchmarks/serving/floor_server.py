"""The floor of a request as one server: an echo that makes a Redis round trip and a bare forward before it replies.

    python -m benchmarks.serving.floor_server REGISTRY REDIS_URL SIZE PORT

No request can be answered sooner by the same HTTP server, Redis and weights; whatever slows the machine down, slows it
down as it does a scorer. It answers the bodies of `world.BODIES` alone, whose commands and batches it has made before.
"""

import graft  # noqa: F401 - gives numpy one BLAS thread, as the scorer's process has

# isort: split
import asyncio
import gc
import sys
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from benchmarks import scorer
from benchmarks.serving.world import VERSION
from features.online.async_reader import AsyncOnlineReader
from student.versions.numpy_model import NumpyStudent
from student.versions.registry import Registry


def main(registry: str, redis_url: str, size: str, port: str) -> None:
    student = NumpyStudent(*Registry(Path(registry)).load_model(VERSION))
    with asyncio.Runner() as runner:
        reader = AsyncOnlineReader(scorer.SPEC, redis_url, timeout_seconds=5.0)
        forward = scorer.bare_forward(student, reader, runner)
        runner.run(reader.close())
    round_trip, reply = scorer.redis_round_trip(redis_url, with_items=False), b"x" * int(size)

    async def answer(request: Request) -> Response:
        body = await request.body()
        round_trip(body)
        forward(body)
        return Response(reply, media_type="application/json")

    app = Starlette(routes=[Route("/score", answer, methods=["POST"])])
    gc.collect()
    gc.freeze()  # as the scorer does
    uvicorn.run(app, port=int(port), http="httptools", ws="none", log_level="warning", access_log=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
