"""Which requests are let in: those with a token, of a bounded size, and no more of them at a time than are declared."""

import hmac
import logging
import re
import time
from pathlib import Path

from starlette.requests import Request

from runtime.errors import ConfigurationError
from student.serve.requests import MAX_BODY_BYTES, RequestError, refusal

_log = logging.getLogger(__name__)

_SHORTEST = 16
_GOOD = re.compile(rb"[ -~]{%d,}" % _SHORTEST)  # a header's other characters have no encoding that all agree on
_LOOK_SECONDS = 1.0


class Tokens:
    """The tokens in `path`, one a line; empty lines and those that begin with # are none.

    Several at a time let clients change over one by one. ConfigurationError when the file holds none, or one that is
    short. A later change is taken up within a second; a file that is no good then leaves the tokens as they were.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._changed = _changed(path)  # first: what is written while it is read counts as a change
        self._tokens = _read(path)
        self._look_at = time.monotonic() + _LOOK_SECONDS

    def allow(self, authorization: str | None) -> bool:
        """Whether an Authorization header has one of the tokens; takes as long for a wrong one as for a right one."""
        self._follow()
        scheme, _, token = (authorization or "").partition(" ")
        given = token.strip().encode()
        found = [hmac.compare_digest(given, one) for one in self._tokens]
        return scheme.lower() == "bearer" and any(found)

    def _follow(self) -> None:
        if time.monotonic() < self._look_at:
            return
        self._look_at = time.monotonic() + _LOOK_SECONDS
        changed = _changed(self._path)
        if changed != self._changed:
            self._changed = changed
            try:
                self._tokens = _read(self._path)
            except ConfigurationError as error:
                _log.error("the tokens stay as they were: %s", error)
            else:
                _log.info("%d tokens from %s", len(self._tokens), self._path)


def _read(path: Path) -> list[bytes]:
    variable = "GRAFT_HTTP_TOKENS_FILE"
    try:
        lines = [line.strip() for line in path.read_text("utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError([f"{variable}: cannot read {path}: {error}"]) from None
    tokens = [line.encode() for line in lines if line and not line.startswith("#")]
    if not tokens or not all(map(_GOOD.fullmatch, tokens)):
        rule = (
            f"must hold tokens of at least {_SHORTEST} ASCII characters, one a line, such as those of "
            "'openssl rand -hex 32'"
        )
        raise ConfigurationError([f"{variable}: {path} {rule}"])
    return tokens


def _changed(path: Path) -> tuple[int, int, int] | None:
    """Other numbers after a change of the file, of its rights or of which file it is."""
    try:
        told = path.stat()
    except OSError:
        return None
    return told.st_ctime_ns, told.st_ino, told.st_size


RETRY_AFTER = {"retry-after": "1"}
"""The header of a 503, in seconds."""

_LONGEST_LENGTH = 10  # digits of a body's length that are looked at


class Admission:
    """Lets requests of all protocols in, by the same limits, `most` at a time; without `tokens` anyone may ask.

    A request is under way within ``with admission``, which raises RequestError 503 where too many are.
    """

    def __init__(self, most: int, tokens: Tokens | None) -> None:
        self._most = most
        self._tokens = tokens
        self._under_way = 0

    @property
    def is_full(self) -> bool:
        """Whether no more requests are let in now."""
        return self._under_way >= self._most

    def too_much(self) -> RequestError:
        """What a request is told that is not let in."""
        return unavailable(f"{self._most} requests are under way, and no more are taken at a time")

    def __enter__(self) -> None:
        if self.is_full:
            raise self.too_much()
        self._under_way += 1

    def __exit__(self, *_: object) -> None:
        self._under_way -= 1

    async def body_of(self, request: Request) -> bytes:
        """The body of a request; RequestError 401 or 413 instead."""
        if self._tokens and not self._tokens.allow(request.headers.get("authorization")):
            allowed = "Authorization: Bearer TOKEN, with a token of GRAFT_HTTP_TOKENS_FILE"
            message = f"this request has no token that is allowed; allowed is {allowed}"
            raise refusal(401, "authorization", None, allowed, message, {"www-authenticate": "Bearer"})
        return await _body(request)


def unavailable(reason: str) -> RequestError:
    """A RequestError 503, after which the client may try again."""
    return refusal(503, "", None, "the same request a second later, when /readyz says 200", reason, RETRY_AFTER)


async def _body(request: Request) -> bytes:
    """The body; RequestError 413 above MAX_BODY_BYTES, as soon as that is known."""
    declared = request.headers.get("content-length", "").lstrip("0")
    if declared.isdecimal() and (len(declared) > _LONGEST_LENGTH or int(declared) > MAX_BODY_BYTES):
        raise _too_large(int(declared[:_LONGEST_LENGTH]))
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise _too_large(len(body))
    return bytes(body)


def _too_large(size: int) -> RequestError:
    allowed = f"a body of at most {MAX_BODY_BYTES} bytes"
    return refusal(413, "", size, allowed, f"the body has {size} bytes or more; allowed is {allowed}")
