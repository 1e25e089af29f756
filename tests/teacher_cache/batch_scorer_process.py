"""A batch scorer, with batches of four rows, that dies by kill -9 at its first commit.

`python batch_scorer_process.py FOLDER KAFKA_SERVERS PREFIX REDIS_URL`; FOLDER has teacher.onnx, config.json, spec.json.
"""

import os
import signal
import sys
from pathlib import Path

from features.spec import FeatureSpec
from runtime.telemetry import StopSignal
from stream.config import Topics
from stream.log.requests import TeacherRequestReader
from teacher_cache import batch_scorer
from teacher_cache.cache.cache import LogitCache
from teacher_cache.config import TeacherConfig
from teacher_cache.domain.domain_map import DomainMap
from teacher_cache.domain.request_scorer import RequestScorer
from teacher_cache.kinds.load import load_teacher


class _DiesAtCommit(TeacherRequestReader):
    def commit(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


def main(folder: Path, kafka_servers: str, prefix: str, redis_url: str) -> None:
    config = TeacherConfig.model_validate_json((folder / "config.json").read_text())
    spec = FeatureSpec.model_validate_json((folder / "spec.json").read_text())
    teacher = load_teacher(config, folder)
    domain_map = DomainMap(config, folder, teacher, spec)
    cache = LogitCache(redis_url, "p:g1", [task.name for task in config.tasks], config.ttl_seconds)
    reader = _DiesAtCommit(kafka_servers, Topics(prefix=prefix), "scorer-0")
    batch_scorer.BATCH_ROWS, batch_scorer.EVERY_SECONDS = 4, 0.02
    batch_scorer.run_batch_scorer(reader, RequestScorer(teacher, domain_map, spec), cache, config, StopSignal())


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
