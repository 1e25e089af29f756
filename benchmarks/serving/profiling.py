"""Where the time of a request goes: the stack of a scorer at its limit, looked at after each so much processor time."""

import json
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.serving.load import closed_loop
from benchmarks.serving.world import REQUESTS, World, serving_with

PARTS = {
    "HTTP": "RequestResponseCycle.run_asgi",
    "of it: all that is ours": "timed.<locals>.answer",
    "of ours: parse": "RequestContract.parse",
    "of ours: read the features": "AsyncOnlineReader.read",
    "of ours: places of ids": "ItemPlaces.of",
    "of ours: forward": "NumpyStudent.score_at",
    "of the forward: network": "_NumpyArm._network",
    "of the forward: posterior": "NumpyPosterior.score",
    "of ours: reply": "_reply",
}
"""What is reported -> the function during which a sample counts."""

SAMPLED = """
import atexit, collections, json, signal, sys
from graft.cli import cli
counts, total = collections.Counter(), 0
def sample(_number, frame):
    global total
    total += 1
    names = set()
    while frame is not None:
        names.add(frame.f_code.co_qualname)
        frame = frame.f_back
    counts.update(names)
signal.signal(signal.SIGPROF, sample)
signal.signal(signal.SIGUSR1, lambda *_: signal.setitimer(signal.ITIMER_PROF, 0.001, 0.001))
out = sys.argv.pop(1)
atexit.register(lambda: open(out, "w").write(json.dumps({name: n / total for name, n in counts.items()})))
cli()
"""


def profile(of: World, seconds: float) -> dict[str, Any]:
    """Shares of the processor time of one process in a closed loop; samples slow it by less than a tenth."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "shares.json"
        with serving_with(of, [sys.executable, "-c", SAMPLED, str(out)]) as (port, process):
            closed_loop(port, REQUESTS, 3.0)
            os.kill(process.pid, signal.SIGUSR1)
            rate = closed_loop(port, REQUESTS, seconds)
        shares = json.loads(out.read_text())
    return {
        "requests_per_second": round(rate),
        "shares": {part: round(shares.get(name, 0.0), 3) for part, name in PARTS.items()},
    }
