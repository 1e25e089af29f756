"""Embedded Kafka and Redis: servers that a process starts and ends, or a user's own in their place.

Doors: `servers`, `services` (what the settings do not name is embedded).
Imports: `graft`, `stream`, `runtime`.
"""

from lab.embedded.servers import EmbeddedKafka, EmbeddedRedis, free_port, is_free_port

__all__ = ("EmbeddedKafka", "EmbeddedRedis", "free_port", "is_free_port")
