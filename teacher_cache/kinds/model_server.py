"""A model server that speaks the Open Inference Protocol v2 over HTTP: the endpoints of one model, and its errors."""

import re
import ssl
from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple
from urllib.parse import SplitResult, quote, urlsplit

from pydantic import Field

from runtime.errors import ConfigurationError
from runtime.inference_protocol import BINARY, Part, TensorError, TensorMetadata, parsed
from runtime.tracing import HEADER, TRACING
from teacher_cache.config import URL_ALLOWED, ServerConfig
from teacher_cache.kinds.bisection import TeacherUnavailableError
from teacher_cache.kinds.http_connections import HttpConnections, Reply
from teacher_cache.teacher import ServerAccess

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
