"""Embedded Kafka and Redis: servers that a process starts and ends, and the choice between them and a user's own.

Front: `servers` (Redis and the brokers) and `services` (what the settings do not name is embedded).
"""

from lab.embedded.servers import EmbeddedKafka, EmbeddedRedis, free_port, is_free_port

__all__ = ("EmbeddedKafka", "EmbeddedRedis", "free_port", "is_free_port")
