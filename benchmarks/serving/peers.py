"""Other servers on the same machine, Redis and weights: latency, the highest rate that they keep up with, memory.

Each has a virtual environment of its own in a cache folder, over the packages of this one; one that does not install
from the package index, or does not start, is told with the reason.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil

from benchmarks import scorer
from benchmarks.serving.load import CONNECTIONS, Outcome, constant_rate, request
from benchmarks.serving.world import BODIES, REQUESTS, World, graft_serving
from features.config import FeaturesConfig
from features.store import apply
from lab.embedded import free_port

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "graft-peers"
ROOT = Path(__file__).parents[2]
SERVERS = Path(__file__).with_name("peer_servers")
LADDER = (5, 10, 20, 50, 75, 100, 150, 200, 300, 500, 750, 1_000, 1_500, 2_000, 3_000, 4_000, 6_000)
MOST_P99_MS = 10.0
START_SECONDS = 120.0

SETTINGS = """
project: bench
provider: local
registry: data/registry.db
entity_key_serialization_version: 3
online_store: {{type: redis, connection_string: "{address}"}}
"""
DEFINITIONS = f"""
from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType
from feast.types import Array, Float32, String
views = []
for name in ("user", "item"):
    schema = [Field(name=f"number{{i}}", dtype=Float32) for i in range(6)]
    schema += [Field(name=f"word{{i}}", dtype=String) for i in range(2)]
    if name == "item":
        schema.append(Field(name="vector", dtype=Array(Float32), vector_length={scorer.EMBEDDING}))
    globals()[name] = Entity(name=name, join_keys=[f"{{name}}_id"], value_type=ValueType.INT64)
    source = FileSource(path=f"data/{{name}}.parquet", timestamp_field="at")
    views.append(FeatureView(name=f"{{name}}s", entities=[globals()[name]], schema=schema, source=source))
users, items = views
everything = FeatureService(name="everything", features=views)
"""


class Peer(NamedTuple):
    name: str
    packages: tuple[str, ...]
    argv: Callable[[Path, int], list[str]]
    """Of the environment's folder and a port."""
    path: str = "/score"
    body: Callable[[bytes], bytes] = lambda body: body


def _module(name: str) -> Callable[[Path, int], list[str]]:
    return lambda environment, _port: [str(environment / "bin/python"), "-m", f"benchmarks.serving.peer_servers.{name}"]


def _for_feast(body: bytes) -> bytes:
    asked = json.loads(body)
    users = [asked["user_id"]] * len(asked["item_ids"])
    entities = {"user_id": users, "item_id": asked["item_ids"]}
    return json.dumps({"feature_service": "everything", "entities": entities, "full_feature_names": True}).encode()


def _for_mlserver(body: bytes) -> bytes:
    one = {
        "name": "body",
        "shape": [1],
        "datatype": "BYTES",
        "data": [body.decode()],
        "parameters": {"content_type": "str"},
    }
    return json.dumps({"inputs": [one]}).encode()


PEERS = (
    Peer("Feast SDK + FastAPI + torch eager", ("fastapi",), _module("fastapi_server")),
    Peer(
        "Feast's feature server (features alone, no scores)",
        ("fastapi", "gunicorn", "uvicorn-worker"),
        lambda environment, port: [
            *(str(environment / "bin/python"), "-m", "feast.cli.cli", "-c", os.environ["PEER_REPO"]),
            *("serve", "--host", "127.0.0.1", "--port", str(port), "--no-access-log", "--workers", "1"),
        ],
        "/get-online-features",
        _for_feast,
    ),
    Peer("LitServe", ("litserve",), _module("litserve_server")),
    Peer(
        "BentoML",
        ("bentoml",),
        lambda environment, port: [
            *(str(environment / "bin/bentoml"), "serve", "benchmarks.serving.peer_servers.bentoml_server:Scores"),
            *("--host", "127.0.0.1", "--port", str(port), "--working-dir", str(ROOT)),
        ],
    ),
    Peer("MLServer", ("mlserver",), _module("mlserver_runtime"), "/v2/models/student/infer", _for_mlserver),
    Peer("Ray Serve", ("ray[serve]",), _module("ray_server")),
)


def beside_peers(of: World, seconds: float) -> dict[str, Any]:
    """For graft and each peer: p50 at 50 requests a second, the highest rate with a p99 below 10 ms, memory."""
    found: dict[str, Any] = {}
    with graft_serving(of) as (port, process):
        found["graft"] = _measured(port, REQUESTS, process, seconds)
    with tempfile.TemporaryDirectory() as folder:
        _write_repository(Path(folder), of)
        os.environ |= {"PEER_REPO": folder, "PEER_VERSIONS": str(of.registry.folder)}
        for peer in PEERS:
            try:
                environment = _installed(peer)
                with _serving(peer, environment, of) as (port, process):
                    requests = [request(peer.path, peer.body(body)) for body in BODIES]
                    found[peer.name] = _measured(port, requests, process, seconds)
            except _UnavailableError as error:
                found[peer.name] = {"unavailable": str(error)}
            print(peer.name, found[peer.name], flush=True)
    return found


class _UnavailableError(Exception):
    """A peer that does not install or start."""


def _measured(port: int, requests: list[bytes], process: psutil.Process, seconds: float) -> dict[str, Any]:
    constant_rate(port, requests, 20, 2.0)
    at_50 = _tried(port, requests, 50, seconds)
    highest = 0
    for rate in LADDER:
        outcome = _tried(port, requests, rate, min(seconds, 5.0))
        if outcome is None or outcome.failures or outcome.percentile(99) >= MOST_P99_MS:
            break
        highest = rate
    memory = sum(one.memory_full_info().pss for one in (process, *process.children(recursive=True)))
    return {
        "p50_ms_at_50": None if at_50 is None else round(at_50.percentile(50), 2),
        "highest_rate_with_p99_below_10_ms": highest,
        "memory_mb": round(memory / 1e6),
    }


def _tried(port: int, requests: list[bytes], rate: float, seconds: float) -> Outcome | None:
    """None where the server falls behind for good."""
    try:
        return constant_rate(port, requests, rate, 0.5 + seconds)
    except (AssertionError, OSError):
        return None


def _write_repository(repo: Path, of: World) -> None:
    import pandas as pd  # noqa: PLC0415 - the other parts do without

    (repo / "data").mkdir()
    (repo / "feature_store.yaml").write_text(
        SETTINGS.format(address=of.redis.url.removeprefix("redis://").split("/")[0])
    )
    (repo / "definitions.py").write_text(DEFINITIONS)
    for name in ("user", "item"):
        frame = pd.DataFrame({f"{name}_id": [0], "at": [pd.Timestamp.now("UTC")], "word0": ["a"], "word1": ["a"]})
        for i in range(6):
            frame[f"number{i}"] = np.float32([0])
        frame["vector"] = [[0.0] * scorer.EMBEDDING]
        frame.to_parquet(repo / "data" / f"{name}.parquet")
    dense = [f"{view}:number{i}" for view in ("users", "items") for i in range(6)]
    apply(repo, of.redis.url, FeaturesConfig(service="everything", dense=dense))


def _installed(peer: Peer) -> Path:
    """The folder of the peer's environment, made at its first use."""
    environment = CACHE / peer.name.split(" ")[0].strip("'").lower()
    done = environment / ".installed"
    if done.exists() and done.read_text() == " ".join(peer.packages):
        return environment
    shutil.rmtree(environment, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    packages = environment / f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
    ours = [path for path in sys.path if path.endswith("site-packages")]
    (packages / "graft.pth").write_text("\n".join([str(ROOT), *ours]))
    command = [environment / "bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    run = subprocess.run([*command, *peer.packages], capture_output=True, text=True, check=False)
    if run.returncode:
        last = (run.stderr.strip().splitlines() or ["no message"])[-1]
        raise _UnavailableError(f"pip could not install {' '.join(peer.packages)}: {last[:200]}")
    done.write_text(" ".join(peer.packages))
    return environment


@contextmanager
def _serving(peer: Peer, environment: Path, of: World) -> Iterator[tuple[int, psutil.Process]]:
    port = free_port(2)
    log, own_cores = environment / "server.log", os.sched_getaffinity(0)
    with log.open("wb") as output:
        os.sched_setaffinity(0, of.cores[:1])  # the server and its children inherit it
        child = subprocess.Popen(
            peer.argv(environment, port),
            env={**os.environ, "PEER_PORT": str(port), "GRAFT_REDIS_URL": of.redis.url, "OPENBLAS_NUM_THREADS": "1"},
            stdout=output,
            stderr=output,
            cwd=ROOT,
        )
        os.sched_setaffinity(0, own_cores)
    process = psutil.Process(child.pid)
    try:
        first = request(peer.path, peer.body(BODIES[0]))
        deadline = time.monotonic() + START_SECONDS
        while not _answers(port, first):
            if child.poll() is not None or time.monotonic() > deadline:
                lines = log.read_text(errors="replace").strip().splitlines() or ["no message"]
                raise _UnavailableError(f"it did not start: {lines[-1][:200]}")
            time.sleep(0.2)
        yield port, process
    finally:
        everyone = [*process.children(recursive=True), process]
        for one in everyone:
            with suppress(psutil.NoSuchProcess):
                one.terminate()
        _, left = psutil.wait_procs(everyone, 20)
        for one in left:
            one.kill()
        child.wait()


def _answers(port: int, first: bytes) -> bool:
    try:
        outcome = constant_rate(port, [first], CONNECTIONS, 0.9)
    except (OSError, AssertionError, IndexError):
        return False
    return not outcome.failures
