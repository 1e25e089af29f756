"""Kafka and Redis for a demo: the ones that the settings name, or embedded ones."""

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

from graft.project import Project
from graft.settings import load_settings
from lab.demo.plan import LIMITS
from lab.embedded import EmbeddedKafka, EmbeddedRedis
from runtime.errors import GraftError
from stream import connection
from stream.groups import end_offsets
from stream.topics import all_topics, ensure_topics


class Services(NamedTuple):
    """The addresses of both; an embedded Kafka keeps only little of each topic."""

    kafka: str
    redis_url: str
    embedded_kafka: bool


@contextmanager
def running_services(environment: Mapping[str, str] = os.environ) -> Iterator[Services]:
    """Start the servers that the settings do not name; they end with the block."""
    settings = load_settings(environment)
    own_kafka = any(environment.get(name) for name in ("GRAFT_KAFKA", "GRAFT_KAFKA_FILE"))
    own_redis = any(environment.get(name) for name in ("GRAFT_REDIS_URL", "GRAFT_REDIS_URL_FILE"))
    with ExitStack() as stack:
        kafka = settings.kafka if own_kafka else stack.enter_context(EmbeddedKafka()).servers
        redis_url = settings.redis_url.get_secret_value() if own_redis else stack.enter_context(EmbeddedRedis()).url
        yield Services(kafka, redis_url, embedded_kafka=not own_kafka)


def make_topics(services: Services, project: Project) -> None:
    """Make the project's topics; GraftError when one has records already, which the demo would count as its own."""
    limits = LIMITS if services.embedded_kafka else None
    ensure_topics(services.kafka, project.stream, project.topics, limits)
    admin = connection.admin(services.kafka)
    try:
        with connection.reaching(services.kafka):
            used = sorted({p.topic for p, end in end_offsets(admin, all_topics(project.topics)).items() if end > 0})
    finally:
        admin.close()
    if used:
        raise GraftError(
            f"Kafka at {services.kafka}: the demo counts what it sends, so its topics must be empty; these are not: "
            f"{', '.join(used)}; delete them, or unset GRAFT_KAFKA to use the embedded broker"
        )
