"""Kafka and Redis for `graft dev` and the demo: the ones that the settings name, or embedded ones."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from graft.settings import load_settings
from lab.embedded.servers import ApacheKafka, EmbeddedKafka, EmbeddedRedis, embedded_kafka
from runtime.redis import connect, reaching
from stream.kafka import connection
from stream.kafka.security import Security, use


class Services(NamedTuple):
    """The addresses of both; an embedded Kafka keeps only little of each topic.

    `check` raises ServiceUnavailableError when an embedded one has ended by itself.
    """

    kafka: str
    redis_url: str
    embedded_kafka: bool
    embedded_redis: bool = True
    check: Callable[[], None] = lambda: None
    embedded_broker: str = "embedded"
    """What an embedded Kafka is: neither can go on with what the other has kept."""


@contextmanager
def running_services(environment: Mapping[str, str] = os.environ, kept: Path | None = None) -> Iterator[Services]:
    """Start the servers that the settings do not name; they end with the block.

    `kept`: the folder where they keep their data over their end; None: they keep nothing.
    """
    settings = load_settings(environment)
    own_kafka = any(environment.get(name) for name in ("GRAFT_KAFKA", "GRAFT_KAFKA_FILE"))
    own_redis = any(environment.get(name) for name in ("GRAFT_REDIS_URL", "GRAFT_REDIS_URL_FILE"))
    kafka_folder, redis_folder = (kept / "kafka", kept / "redis") if kept else (None, None)
    servers: list[EmbeddedKafka | EmbeddedRedis] = []
    with ExitStack() as stack:
        kafka, redis_url = settings.kafka, settings.redis_address
        if not own_redis:
            redis = stack.enter_context(EmbeddedRedis(redis_folder, keeps=kept is not None))
            redis_url = redis.url
            servers.append(redis)
        if not own_kafka:
            broker = stack.enter_context(embedded_kafka(kafka_folder, keeps=kept is not None, environment=environment))
            kafka = broker.servers
            servers.append(broker)
        use(settings.kafka_security if own_kafka else Security())
        is_apache = any(isinstance(server, ApacheKafka) for server in servers)
        kind = "embedded, of EMBEDDED_KAFKA_HOME" if is_apache else "embedded"
        yield Services(kafka, redis_url, not own_kafka, not own_redis, lambda: _check(servers), kind)


def refuse_silent(services: Services) -> None:
    """ServiceUnavailableError, with the address, when one of the two does not answer."""
    connection.wait_until_ready(services.kafka, 5.0)
    with reaching(services.redis_url), connect(services.redis_url, timeout_seconds=5.0) as client:
        client.ping()


def _check(servers: list[EmbeddedKafka | EmbeddedRedis]) -> None:
    for server in servers:
        server.check()
