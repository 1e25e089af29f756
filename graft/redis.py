"""Redis' one door: connections with time limits, and errors that say what to do. A leaf: every room may import it.

Replies stay bytes. `redis.asyncio` is not used: the scorer multiplexes its reads over one connection of its own
(features/async_reader.py), which needs only the address that `parse_url` gives.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import redis
from redis.connection import parse_url as _redis_parse_url

from graft.errors import ConfigurationError, ServiceUnavailableError

Client = redis.Redis


class Address(NamedTuple):
    """Where a Redis listens and how to log in; `str()` never shows the password."""

    host: str
    port: int
    db: int
    username: str | None
    password: str | None
    tls: bool

    def __str__(self) -> str:
        return f"{'rediss' if self.tls else 'redis'}://{self.host}:{self.port}/{self.db}"


def parse_url(url: str) -> Address:
    """The parts of ``redis[s]://[user:password@]host[:port][/db]``; ConfigurationError for anything else."""
    if urlsplit(url).scheme not in ("redis", "rediss"):
        raise ConfigurationError(["GRAFT_REDIS_URL: must start with redis:// or rediss://"])
    try:
        parts: dict[str, Any] = _redis_parse_url(url)  # type: ignore[no-untyped-call]
    except ValueError as error:
        raise ConfigurationError([f"GRAFT_REDIS_URL: {error}"]) from None
    return Address(
        parts.get("host", "localhost"),
        int(parts.get("port", 6379)),
        int(parts.get("db", 0)),
        parts.get("username"),
        parts.get("password"),
        url.startswith("rediss://"),
    )


def connect(url: str, *, timeout_seconds: float = 5.0) -> Client:
    """A client that connects at its first command and gives up a command after `timeout_seconds`."""
    parse_url(url)
    return redis.Redis.from_url(url, socket_timeout=timeout_seconds, socket_connect_timeout=timeout_seconds)


@contextmanager
def reaching(url: str) -> Iterator[None]:
    """Turn a Redis that does not answer, or takes no writes, inside the block into ServiceUnavailableError."""
    try:
        yield
    except (redis.exceptions.OutOfMemoryError, redis.exceptions.ReadOnlyError) as error:
        raise ServiceUnavailableError(
            f"Redis at {parse_url(url)} takes no writes ({error}); give it more memory, or name the primary"
        ) from error
    except (redis.ConnectionError, redis.TimeoutError) as error:
        raise ServiceUnavailableError(
            f"Redis at {parse_url(url)} does not answer ({type(error).__name__}); "
            "start it with 'docker compose up -d redis' or set GRAFT_REDIS_URL"
        ) from error
