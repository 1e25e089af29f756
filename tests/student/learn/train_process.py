"""The learner process alone or under torchrun: `tests.student.learn.train_process KAFKA PREFIX REDIS FOLDER [LOG]`.

Writes each rank's pid beside FOLDER, as FOLDER-RANK.pid. PUBLISH_SECONDS in the environment is its
`publish.every_seconds`.
"""

import atexit
import gc
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

from runtime.errors import GraftError
from runtime.telemetry import StopSignal, configure_logging
from stream.config import Topics
from stream.kafka.topics import topic_id
from stream.log.example_log import ExampleLog, log_then_topic
from stream.log.examples import ExampleReader
from student.learn.config import PublishConfig
from student.learn.exchange import nearest_device, open_exchange
from student.learn.learner import Learner
from student.learn.process.publishing import Publication
from student.learn.process.teacher_source import Teaching
from student.learn.process.train import Examples, run_training
from student.learn.setup import LearnerSetup
from student.versions.registry import Registry
from teacher_cache.cache.cache import LogitCache
from tests.student.conftest import Toy

TASKS = ("finish", "like", "rating")
TEACHER = "t1"
GENERATION = "g1"


def logit_cache(redis_url: str) -> LogitCache:
    return LogitCache(redis_url, TEACHER, TASKS, 3600)


def setup() -> LearnerSetup:
    """The toy's, whose batches wait for no logit."""
    return Toy().setup(wait_seconds=0.0)


def prepare() -> None:
    """What every learner loads at its start: the machine code of its metrics, and more of torch."""
    Learner(setup())


def main() -> None:
    atexit.register(gc.freeze)  # ends as quickly as graft's own command
    kafka, prefix, redis_url, folder, *log = sys.argv[1:]
    topics = Topics(prefix=prefix)
    Path(f"{folder}-{os.environ.get('RANK', '0')}.pid").write_text(str(os.getpid()))
    stop = StopSignal().install()
    configure_logging()
    open_source: Any = partial(ExampleReader, kafka, topics)
    if log:
        open_source = partial(log_then_topic, ExampleLog(Path(log[0])), kafka, topics)
    try:
        with open_exchange() as exchange:
            publish = PublishConfig(every_seconds=float(os.environ.get("PUBLISH_SECONDS", "0.25")), keep=1000)
            run_training(
                setup(),
                Examples(partial(open_source, ranks=exchange), topic_id(kafka, topics.examples)),
                Teaching(logit_cache(redis_url), TEACHER, GENERATION),
                Publication(Registry(Path(folder)), publish),
                stop,
                exchange=exchange,
                device=nearest_device(),
            )
    except GraftError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
