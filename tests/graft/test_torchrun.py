"""`graft student train` as two processes: the user's command, its metrics, its stop."""

import os
import sys
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from features.repo.store import apply
from graft.project import load_project
from lab.embedded import free_port
from runtime.child import start_child
from stream.events import Example
from stream.kafka import connection
from stream.kafka.topics import ensure_topics
from student.versions.registry import Registry

_TORCHRUN = [str(Path(sys.executable).with_name("torchrun")), "--nproc-per-node", "2", "-m", "graft"]
_FAST = """
[stream]
topic_prefix = "PREFIX"
partitions = 2
[student]
micro_batch = 3
[publish]
every_seconds = 0.1
"""


def _example(number: int, spec_id: str) -> Example:
    return Example(
        impression_id=f"i{number}",
        user_id=number % 5,
        item_id="ab"[number % 2],
        event_time_ms=number,
        context={},
        spec_id=spec_id,
        features=[30.0 + number, number % 5, "ab"[number % 2]],
        labels={"like": float(number % 3 == 0)},
    )


def _write(project: Any, kafka: str, spec_id: str, numbers: range, partition: int) -> None:
    producer = connection.producer(kafka)
    for number in numbers:
        value = _example(number, spec_id).model_dump_json().encode()
        producer.send(project.topics.examples, value, partition=partition)
    producer.flush()
    producer.close()


def _learnt(registry: Registry, examples: int, child: Any) -> Mapping[str, int]:
    """The offsets of the version that has so many examples."""
    deadline = time.monotonic() + 90
    while True:
        newest = registry.latest()
        manifest = registry.load_manifest(newest) if newest else None
        if manifest and manifest.examples >= examples:
            return manifest.offsets
        assert child.poll() is None
        assert time.monotonic() < deadline, manifest
        time.sleep(0.05)  # other processes write the folder


def _metrics(port: int) -> dict[str, float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as reply:
        lines = [line.decode().split() for line in reply if not line.startswith(b"#")]
    return {name: float(value) for name, value in lines}


@pytest.mark.timeout(240)  # three imports of torch on a busy machine
def test_two_processes_learn_a_stream_whose_partitions_come_one_after_the_other(
    sound_project: Path, redis_url: str, kafka: str, topic_prefix: str
) -> None:
    (sound_project / "graft.toml").write_text(
        (sound_project / "graft.toml").read_text() + _FAST.replace("PREFIX", topic_prefix)
    )
    port = next(port for port in iter(free_port, None) if port < 65_000)
    environment = {
        **os.environ,
        "GRAFT_PROJECT": str(sound_project),
        "GRAFT_KAFKA": kafka,
        "GRAFT_REDIS_URL": redis_url,
        "GRAFT_VERSIONS": str(sound_project / "versions"),
        "GRAFT_METRICS_PORT": str(port),
    }
    project, registry = load_project(sound_project), Registry(sound_project / "versions")
    spec_id = apply(project.repo, redis_url, project.features).spec_id
    ensure_topics(kafka, project.stream, project.topics)
    _write(project, kafka, spec_id, range(30), 1)
    with (sound_project / "log").open("wb") as log:
        child = start_child([*_TORCHRUN, "student", "train"], env=environment, stdout=log, stderr=log)
    try:
        assert _learnt(registry, 30, child) == {"1": 30}
        _write(project, kafka, spec_id, range(30, 36), 0)
        assert _learnt(registry, 36, child) == {"0": 6, "1": 30}
        first, second = (_metrics(port + rank) for rank in range(2))
        assert first["graft_student_learned_examples"] == 36
        misses = 'graft_student_logits_total{outcome="miss"}'
        assert first[misses] + second[misses] == 36
        assert min(first[misses], second[misses]) >= 12, "each looks up its own part of what was polled"
        _write(project, kafka, spec_id, range(36, 1536), 1)
        _learnt(registry, 37, child)
    finally:
        child.terminate()  # with examples in the making; torchrun's own exit code is 1 for a SIGTERM
        child.wait(60)
    assert registry.load_manifest(registry.latest()).examples < 1536, "all was learnt: the stop proves nothing"
    assert registry.champion() == registry.latest()
    assert not list(registry.folder.glob(".*/")), "a rank was killed within a publish"
    assert "ERROR" not in (sound_project / "log").read_text()
