"""Connections to Redis with time limits, and errors that say what to do. No other module imports redis.

Replies stay bytes. `redis.asyncio` is not used: the scorer multiplexes its reads over one connection of its own
(features/online/async_reader.py), which needs only the address that `parse_url` gives.
"""

import re
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlencode, urlsplit

import hiredis
import redis
from redis.connection import DefaultParser
from redis.connection import parse_url as _redis_parse_url

from runtime.errors import ConfigurationError, GraftError, ServiceUnavailableError
from runtime.tls import NO_TLS, CertificateFiles, answers_plainly, refusal, refused_by, speaks_tls

Client = redis.Redis
WatchError = redis.WatchError
_WRONG_TYPE = "WRONGTYPE"
_FOR_NOW = (
    *("MISCONF", "OOM", "READONLY", "LOADING", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "BUSY", "NOREPLICAS"),
    _WRONG_TYPE,
)
"""Error replies that go away without a change of ours: a disk that is full, a replica that is not up yet, a key that
somebody else has written, ..."""

_IN_PIPELINE = " of pipeline caused error: "
"""What redis-py writes between a command of a pipeline and the error reply to it."""

_READ_BYTES = 1 << 16
_MORE = object()  # what hiredis gives while a reply is not whole

_PING = b"PING\r\n"

_SPECIAL = re.compile(rb"[\\*?\[\]^-]")
"""What means something else than itself in a pattern of SCAN."""

_ALLOWED_URL = (
    "GRAFT_REDIS_URL: must be redis[s]://[user:password@]host[:port][/db] with a numeric port, and no options of TLS "
    "but ssl_ca_certs, ssl_certfile and ssl_keyfile; in a password write / as %2F, # as %23, ? as %3F and @ as %40"
)


_FILES = {"ssl_ca_certs": "ca", "ssl_certfile": "certificate", "ssl_keyfile": "key"}
"""The options of a rediss:// URL, as redis-py names them, and of `CertificateFiles`."""


class Address(NamedTuple):
    """Where a Redis listens and how to log in; neither `str()` nor `repr()` shows the password."""

    host: str
    port: int
    db: int
    username: str | None
    password: str | None
    tls: bool
    files: CertificateFiles

    def __str__(self) -> str:
        return f"{'rediss' if self.tls else 'redis'}://{self.host}:{self.port}/{self.db}"

    def __repr__(self) -> str:
        return str(self)


def with_files(url: str, files: CertificateFiles) -> str:
    """A rediss:// URL that carries these files to every client made of it; ConfigurationError as of `parse_url`."""
    options = {
        option: str(path.absolute()) for option, name in _FILES.items() if (path := getattr(files, name)) is not None
    }
    if not options:
        return url
    parse_url(url)
    return f"{url}{'&' if urlsplit(url).query else '?'}{urlencode(options)}"


def parse_url(url: str) -> Address:
    """The parts of ``redis[s]://[user:password@]host[:port][/db]``; ConfigurationError for anything else.

    The error shows no part of `url`: what stands where a port should may be a piece of the password.
    """
    try:
        parts = _parts(url)
    except ValueError:
        raise ConfigurationError([_ALLOWED_URL]) from None
    return Address(
        parts.get("host", "localhost"),
        int(parts.get("port", 6379)),
        int(parts.get("db", 0)),
        parts.get("username"),
        parts.get("password"),
        url.startswith("rediss://"),
        CertificateFiles(**{name: Path(parts[option]) for option, name in _FILES.items() if option in parts}),
    )


def _parts(url: str) -> dict[str, Any]:
    split = urlsplit(url)
    if split.scheme not in ("redis", "rediss") or "@" in split.path + split.query + split.fragment:
        raise ValueError
    options = {name for name in parse_qs(split.query) if name.startswith("ssl_")}
    if options and (split.scheme != "rediss" or not options <= _FILES.keys()):
        raise ValueError
    parts: dict[str, Any] = _redis_parse_url(url)  # type: ignore[no-untyped-call]
    return parts


def literal(text: bytes) -> bytes:
    """The pattern of SCAN that matches `text` alone."""
    return _SPECIAL.sub(rb"\\\g<0>", text)


def connect(url: str, *, timeout_seconds: float = 5.0) -> Client:
    """A client that connects at its first command and gives up a command after `timeout_seconds`."""
    parse_url(url)
    return redis.Redis.from_url(url, socket_timeout=timeout_seconds, socket_connect_timeout=timeout_seconds)


def refuse_wrong_login(url: str) -> None:
    """GraftError where Redis refuses this client's password or certificate; nothing where it is away, for a second."""
    with suppress(ServiceUnavailableError), reaching(url), connect(url, timeout_seconds=1.0) as client:
        client.ping()


def part(text: str) -> bytes:
    """One part of a command as Redis' wire protocol has it."""
    encoded = text.encode()
    return b"$%d\r\n%b\r\n" % (len(encoded), encoded)


def pack(*parts: str | bytes) -> bytes:
    """A command as Redis' wire protocol has it."""
    return hiredis.pack_command(parts)  # type: ignore[arg-type, no-any-return] # takes tuples of any length


def exchange(client: Client, commands: Sequence[bytes]) -> list[Any]:
    """The replies to packed commands, sent in one piece; None in place of the reply of a key of another type.

    redis-py's own pipeline builds each command anew and reads each reply apart, which costs more than the reading.
    Every other error reply raises.
    """
    pool: Any = client.connection_pool  # partly untyped
    connection = pool.get_connection()
    try:
        connection.send_packed_command([b"".join(commands)])
        return [_without_wrong_type(reply) for reply in _replies(connection, len(commands))]
    except BaseException:
        connection.disconnect()  # replies that were not read must not answer the next exchange
        raise
    finally:
        pool.release(connection)


def _replies(connection: Any, count: int) -> list[Any]:
    """The next replies of a connection that owes so many; error replies as exceptions of redis-py."""
    reader = hiredis.Reader(
        protocolError=redis.InvalidResponse, replyError=DefaultParser.parse_error, notEnoughData=_MORE
    )
    replies: list[Any] = []
    socket_ = connection._sock  # noqa: SLF001 - `read_response` takes a microsecond for each reply
    try:
        while len(replies) < count:
            if not (data := socket_.recv(_READ_BYTES)):
                raise redis.ConnectionError("Connection closed by server.")
            reader.feed(data)
            replies += iter(reader.gets, _MORE)
    except TimeoutError as error:
        raise redis.TimeoutError("Timeout reading from socket") from error
    except OSError as error:
        raise redis.ConnectionError(f"Error while reading: {error}") from error
    return replies


def replies_of(pipeline: Any) -> list[Any]:
    """The replies of redis-py's pipeline; None in place of the reply of a key of another type.

    Every other error reply raises, after all commands were answered.
    """
    return [_without_wrong_type(reply) for reply in pipeline.execute(raise_on_error=False)]


def _without_wrong_type(reply: Any) -> Any:
    """None for the error that a key is of another type; raises any other error."""
    if not isinstance(reply, redis.RedisError):
        return reply
    if isinstance(reply, redis.ResponseError) and _code(reply).startswith(_WRONG_TYPE):
        return None
    raise reply


def _code(error: redis.ResponseError) -> str:
    """The reply itself, which begins with its code."""
    return str(error).rpartition(_IN_PIPELINE)[2]


@contextmanager
def reaching(url: str) -> Iterator[None]:
    """Turn a Redis inside the block that does not answer, or refuses for now, into ServiceUnavailableError.

    One that refuses this client's password, rights or certificate, or has a wrong one itself, is a GraftError: trying
    again would not help.
    """
    try:
        yield
    except (redis.exceptions.OutOfMemoryError, redis.exceptions.ReadOnlyError) as error:
        raise ServiceUnavailableError(
            f"Redis at {parse_url(url)} takes no writes ({error}); give it more memory, or name the primary"
        ) from error
    except (
        redis.AuthenticationError,
        redis.exceptions.AuthorizationError,
        redis.exceptions.NoPermissionError,
    ) as error:
        raise _refused(url, f"{error}; GRAFT_REDIS_URL names user and password") from error
    except redis.ResponseError as error:
        if not _code(error).startswith(_FOR_NOW):
            raise
        advice = "; remove that key" if _code(error).startswith(_WRONG_TYPE) else ""
        raise ServiceUnavailableError(f"Redis at {parse_url(url)} refuses for now: {error}{advice}") from error
    except (redis.ConnectionError, redis.TimeoutError, redis.InvalidResponse) as error:
        if why := _refusal(url, error):
            raise _refused(url, why) from error
        raise ServiceUnavailableError(
            f"Redis at {parse_url(url)} does not answer ({type(error).__name__}); "
            "start it with 'docker compose up -d redis' or set GRAFT_REDIS_URL"
        ) from error


def _refused(url: str, why: str) -> GraftError:
    return GraftError(f"Redis at {parse_url(url)} refuses this client, or is not the one that it should be: {why}")


def _refusal(url: str, error: redis.RedisError) -> str | None:
    """Why another try would fail too; None where Redis may only be away."""
    address = parse_url(url)
    host, port = address.host, address.port
    if isinstance(error.__context__, ConnectionRefusedError | socket.gaierror):
        return None
    if not address.tls:
        may_speak_tls = not isinstance(error, redis.TimeoutError)  # one that expects TLS does not keep silent
        return "it speaks TLS; write rediss:// in GRAFT_REDIS_URL" if may_speak_tls and speaks_tls(host, port) else None
    why = (
        refusal(error)
        or refused_by(host, port, address.files)
        or (NO_TLS if answers_plainly(host, port, _PING) else None)
    )
    return f"{why}; GRAFT_REDIS_URL and GRAFT_REDIS_SSL_... name address and certificates" if why else None
