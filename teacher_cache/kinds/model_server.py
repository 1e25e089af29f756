"""A model server that speaks the Open Inference Protocol v2 over HTTP: the endpoints of one model, and its errors."""

import http.client
import re
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Annotated, Any, NamedTuple
from urllib.parse import SplitResult, quote, urlsplit

from pydantic import Field

from runtime.errors import ConfigurationError
from runtime.inference_protocol import BINARY, Part, TensorError, TensorMetadata, parsed
from runtime.tracing import HEADER, TRACING
from teacher_cache.config import URL_ALLOWED, ServerConfig
from teacher_cache.kinds.computed_teacher import TeacherUnavailableError
from teacher_cache.teacher import ServerAccess

_PIECE_BYTES = 1 << 16


class Reply(NamedTuple):
    """What a server answered: the status, its headers by their names in small letters, and the whole body."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class _StaleConnectionError(Exception):
    """A kept connection that the server had closed before the call; nothing was answered on it."""


class HttpConnections:
    """Kept connections to the host of `url`, as many as calls are made at a time. `tls`: for https, and then needed.

    Every call has a deadline for all of it, and a bound for its reply. No redirects are followed and no proxy is used:
    a token reaches the named server and no other.
    """

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


KEY = "teacher.server"
"""Where graft.toml names it."""

_URL = re.compile(r"https?://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:\d{1,5})?(/[^\s?#@]*)?")
_TOKEN = re.compile(r"[\x21-\x7e]{1,16384}")
_TIMEOUT_SECONDS = 10.0  # of a request's reply; a server that needs longer gets fewer batch_rows
_MOST_METADATA_BYTES = 4 << 20
_OF_ROWS = (400, 422)
"""Replies that blame the request's rows, as 500 may."""


class RowsRefusedError(ValueError):
    """The server refuses a request whose rows may be the reason."""


class ServerFailedError(Exception):
    """The server has failed with a request, and does not say whether for its rows."""


class ServerMetadata(Part):
    """What GET /v2 says."""

    name: str = ""
    extensions: list[str] = Field(default=[])


class ModelMetadata(Part):
    """What GET /v2/models/NAME says."""

    name: str
    versions: list[str] | None = None
    platform: str = ""
    inputs: Annotated[list[TensorMetadata], Field(max_length=10_000)]
    outputs: Annotated[list[TensorMetadata], Field(max_length=10_000)]


class ServedMetadata(NamedTuple):
    """What a server says of its model. `version`: the one that is asked; none where the server has no versions."""

    model: ModelMetadata
    version: str | None
    is_binary: bool

    def made_of(self) -> dict[str, Any]:
        """What the model's logits are made of, as far as a server tells: for a generation's digest."""
        told = self.model
        tensors = {
            kind: {one.name: f"{one.datatype} {one.shape}" for one in of}
            for kind, of in (("inputs", told.inputs), ("outputs", told.outputs))
        }
        return {"model": told.name, "model_version": self.version, "platform": told.platform, **tensors}


def read_metadata(config: ServerConfig, access: ServerAccess) -> ServedMetadata:
    """What the server says of the model; errors as `open_served`."""
    server = ModelServer(config, access)
    try:
        return server.metadata()
    finally:
        server.close()


class ModelServer:
    """The endpoints of one model."""

    def __init__(self, config: ServerConfig, access: ServerAccess) -> None:
        self._config, self._access = config, access
        url = _url(config)
        self._path = url.path.rstrip("/")
        self.name = f"the teacher's server {url.scheme}://{url.netloc}{self._path}, model {config.model}"
        tls = _tls(access) if url.scheme == "https" else None
        self._connections = HttpConnections(url, _TIMEOUT_SECONDS, tls)
        self._authorization()

    def close(self) -> None:
        """Close the connections."""
        self._connections.close()

    def metadata(self) -> ServedMetadata:
        """What the server says. ConfigurationError: it has no such model, or lets nobody in with this token."""
        told = self._get(self._model_path(self._config.model_version), ModelMetadata)
        versions = told.versions or []
        version = self._config.model_version
        if version is None and len(versions) > 1:
            shown = ", ".join(versions[:20])
            raise ConfigurationError(
                [f"graft.toml: {KEY}.model_version: the server has several versions, {shown}; name one of them"]
            )
        if version is None and versions:
            version = versions[0]
        return ServedMetadata(told, version, self._is_binary())

    def post(self, what: str, version: str | None, headers: Mapping[str, str], body: bytes, most: int) -> Reply:
        """The reply to a request of the model; an error of whoever is to blame."""
        path = f"{self._model_path(version)}/{what}"
        try:
            authorization = self._authorization()
        except ConfigurationError as error:  # it was there when the process began
            raise TeacherUnavailableError(str(error)) from error
        trace = {HEADER: text} if (text := TRACING.traceparent()) else {}
        reply = self._connections.call("POST", path, {**headers, **authorization, **trace}, body, most_bytes=most)
        if reply.status == 200:
            return reply
        told = f"{self.name} has answered {reply.status}: {_said(reply)}"
        if reply.status in _OF_ROWS:
            raise RowsRefusedError(told)
        if reply.status == 500:
            raise ServerFailedError(told)
        raise TeacherUnavailableError(told + _hint(reply.status), _retry_after(reply))

    def _is_binary(self) -> bool:
        """Whether the server takes binary tensors; one that does not tell its extensions has none."""
        path = f"{self._path}/v2"
        reply = self._connections.call("GET", path, self._authorization(), most_bytes=_MOST_METADATA_BYTES)
        try:
            return reply.status == 200 and BINARY in parsed(ServerMetadata, reply.body).extensions
        except TensorError:
            return False

    def _get(self, path: str, model: type[ModelMetadata]) -> ModelMetadata:
        reply = self._connections.call("GET", path, self._authorization(), most_bytes=_MOST_METADATA_BYTES)
        if reply.status != 200:
            told = f"{self.name} has answered {reply.status}: {_said(reply)}{_hint(reply.status)}"
            if 300 <= reply.status < 500 and reply.status not in (408, 429):
                raise ConfigurationError([f"graft.toml: {KEY}: {told}"])
            raise TeacherUnavailableError(told, _retry_after(reply))
        try:
            return parsed(model, reply.body)
        except TensorError as error:
            told = f"{path} of {self.name} is no metadata of a model: {error}"
            raise ConfigurationError([f"graft.toml: {KEY}.url: {told}"]) from None

    def _model_path(self, version: str | None) -> str:
        of_version = "" if version is None else f"/versions/{quote(version, safe='')}"
        return f"{self._path}/v2/models/{quote(self._config.model, safe='')}{of_version}"

    def _authorization(self) -> dict[str, str]:
        """The header with the token, read anew: it may be renewed. ConfigurationError, without its value."""
        path = self._access.token_file
        if path is None:
            return {}
        try:
            token = path.read_text("ascii").strip()
        except (OSError, UnicodeDecodeError):
            token = ""
        if not _TOKEN.fullmatch(token):
            fault = f"GRAFT_TEACHER_TOKEN_FILE: {path} must be a file with one bearer token, and is not"
            raise ConfigurationError([fault])
        return {"Authorization": f"Bearer {token}"}


def _url(config: ServerConfig) -> SplitResult:
    """The parts of the URL. ConfigurationError without it: it may hold a password."""
    try:
        if _URL.fullmatch(config.url) and (url := urlsplit(config.url)).port != 0:
            return url
    except ValueError:
        pass
    shown = "one with '@', whose value is not shown" if "@" in config.url else repr(config.url)
    raise ConfigurationError([f"graft.toml: {KEY}.url: must be {URL_ALLOWED}, got {shown}"])


def _tls(access: ServerAccess) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=access.ca_file)
    except (OSError, ssl.SSLError) as error:
        fault = f"GRAFT_TEACHER_CA_FILE: {access.ca_file} must be a file with certificates in PEM: {error}"
        raise ConfigurationError([fault]) from None


def _said(reply: Reply) -> str:
    """What the server says of an error: its sentence in the protocol's place, or the beginning of the body."""
    text = reply.body[:2_000].decode("utf-8", "replace")
    found = re.search(r'"error"\s*:\s*"((?:[^"\\]|\\.)*)', text)
    shown = found[1] if found else text
    return re.sub(r"[^\x20-\x7e\xa0-\uffff]+", " ", shown)[:200] or "nothing"


def _hint(status: int) -> str:
    if status in (401, 403):
        return "; give a token that it lets in, in GRAFT_TEACHER_TOKEN_FILE"
    if status == 404:
        return f"; name a model and a version that it has in {KEY}"
    if status == 413:
        return f"; make {KEY}.batch_rows smaller"
    if 300 <= status < 400:
        return f"; redirects are not followed: name the server itself in {KEY}.url"
    return ""


def _retry_after(reply: Reply) -> float:
    """Seconds; a date counts as none."""
    told = reply.headers.get("retry-after", "").strip()
    return float(told) if told.isdecimal() and len(told) < 6 else 0.0
