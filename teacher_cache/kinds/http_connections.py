"""HTTP to one server, on kept connections: every call has a deadline for all of it, and a bound for its reply.

No redirects are followed and no proxy is used: a token reaches the named server and no other.
"""

import http.client
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import NamedTuple
from urllib.parse import SplitResult

from teacher_cache.kinds.bisection import TeacherUnavailableError

_PIECE_BYTES = 1 << 16


class Reply(NamedTuple):
    """What a server answered: the status, its headers by their names in small letters, and the whole body."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class _StaleConnectionError(Exception):
    """A kept connection that the server had closed before the call; nothing was answered on it."""


class HttpConnections:
    """Connections to the host of `url`, as many as calls are made at a time. `tls`: for https, and then needed."""

    def __init__(self, url: SplitResult, timeout_seconds: float, tls: ssl.SSLContext | None) -> None:
        assert url.hostname is not None
        self._host, self._port = url.hostname, url.port or (443 if tls else 80)
        self._name = f"{url.scheme}://{url.netloc}"
        self._timeout_seconds = timeout_seconds
        self._tls = tls
        self._idle: list[_Connection] = []
        self._lock = threading.Lock()

    def call(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes | None = None, *, most_bytes: int
    ) -> Reply:
        """The reply to one request, whose body has at most `most_bytes`. May be called from several threads.

        TeacherUnavailableError: there is none within the deadline, or the connection breaks before its end.
        """
        end = time.monotonic() + self._timeout_seconds
        while True:
            connection, is_kept = self._take(end)
            try:
                reply = self._exchange(connection, (method, path, headers, body), most_bytes, end, is_kept=is_kept)
            except _StaleConnectionError:
                connection.close()
                continue
            except BaseException:
                connection.close()
                raise
            if connection.sock is not None:  # the server keeps it
                with self._lock:
                    self._idle.append(connection)
            return reply

    def close(self) -> None:
        """Close what is kept."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _take(self, end: float) -> tuple["_Connection", bool]:
        with self._lock:
            if self._idle:
                return self._idle.pop(), True
        return _Connection(self._host, self._port, self._tls, max(0.001, end - time.monotonic())), False

    def _exchange(
        self,
        connection: "_Connection",
        request: tuple[str, str, Mapping[str, str], bytes | None],
        most_bytes: int,
        end: float,
        *,
        is_kept: bool,
    ) -> Reply:
        method, path, headers, body = request
        watch = _Watch(connection, end)
        has_answered = False
        try:
            with watch:
                connection.request(method, path, body, dict(headers))
                response = connection.getresponse()
                has_answered = True
                with response:
                    content = _content(response, most_bytes)
            watch.check()
        except _TooLongError:
            told = f"{self._name}: the reply to {path} has more than {most_bytes:,} bytes"
            raise TeacherUnavailableError(told) from None
        except (OSError, http.client.HTTPException) as error:
            if watch.has_fired or isinstance(error, TimeoutError):
                told = f"{self._name}: {path} was not answered within {self._timeout_seconds:g} s"
                raise TeacherUnavailableError(told) from error
            if is_kept and not has_answered and isinstance(error, ConnectionError):
                raise _StaleConnectionError from error
            told = f"{self._name} does not answer {path}: {_told(error)}"
            raise TeacherUnavailableError(f"{told}; start the server, or set teacher.server.url") from error
        told_headers = {name.lower(): value for name, value in response.getheaders()}
        return Reply(response.status, told_headers, content)


class _Connection(http.client.HTTPConnection):
    """A connection whose socket is known from its first moment, so that a deadline can end its handshake too."""

    def __init__(self, host: str, port: int, tls: ssl.SSLContext | None, timeout_seconds: float) -> None:
        super().__init__(host, port, timeout=timeout_seconds)
        self._tls = tls
        self.opened: socket.socket | None = None
        """As `sock`, also while the last reply of a connection is read."""

    def connect(self) -> None:
        """Open the socket; OSError when that fails."""
        opened = socket.create_connection((self.host, self.port), self.timeout)
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = self.opened = opened
        if self._tls is not None:
            wrapped = self._tls.wrap_socket(opened, server_hostname=self.host, do_handshake_on_connect=False)
            self.sock = self.opened = wrapped
            wrapped.do_handshake()


class _Watch:
    """Ends a connection at a time, whatever it is waiting for; `with` it, then `check` whether it did."""

    def __init__(self, connection: _Connection, end: float) -> None:
        self._connection = connection
        self.has_fired = False
        self._timer = threading.Timer(max(0.0, end - time.monotonic()), self._fire)
        self._timer.daemon = True

    def __enter__(self) -> None:
        self._timer.start()

    def __exit__(self, *_error: object) -> None:
        self._timer.cancel()

    def check(self) -> None:
        """TimeoutError when the connection was ended: what was read may be a part."""
        if self.has_fired:
            raise TimeoutError

    def _fire(self) -> None:
        self.has_fired = True
        opened = self._connection.opened
        if opened is not None:
            with suppress(OSError):  # it is closed already
                socket.socket.shutdown(opened, socket.SHUT_RDWR)  # of TLS the connection below it, at once


class _TooLongError(Exception):
    """A body that is longer than is allowed."""


def _content(response: http.client.HTTPResponse, most_bytes: int) -> bytes:
    """The whole body; IncompleteRead where the connection ends before it."""
    told = response.length
    if told is not None and told > most_bytes:
        raise _TooLongError
    content = bytearray()
    while piece := response.read(_PIECE_BYTES):
        content += piece
        if len(content) > most_bytes:
            raise _TooLongError
    if told is not None and len(content) < told:
        raise http.client.IncompleteRead(bytes(content), told - len(content))
    return bytes(content)


def _told(error: Exception) -> str:
    """An error of the network in words; those of ssl name the certificate's fault."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({error.verify_message}); name its authority in GRAFT_TEACHER_CA_FILE"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return f"{type(error).__name__}: {error}"
