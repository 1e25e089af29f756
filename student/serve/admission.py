"""Which requests are let in: those with a token, of a bounded size, and no more of them at a time than are declared."""

from starlette.requests import Request

from student.serve.connections import Limits
from student.serve.requests import MAX_BODY_BYTES, RequestError, refusal
from student.serve.tokens import Tokens

RETRY_AFTER = {"retry-after": "1"}
"""The header of a 503, in seconds."""

_LONGEST_LENGTH = 10  # digits of a body's length that are looked at


class Admission:
    """Lets requests of all protocols in, by the same limits; without `tokens` anyone may ask.

    A request is under way within ``with admission``, which raises RequestError 503 where too many are.
    """

    def __init__(self, limits: Limits, tokens: Tokens | None) -> None:
        self._limits = limits
        self._tokens = tokens
        self._under_way = 0

    @property
    def is_full(self) -> bool:
        """Whether no more requests are let in now."""
        return self._under_way >= self._limits.requests

    def too_much(self) -> RequestError:
        """What a request is told that is not let in."""
        return unavailable(f"{self._limits.requests} requests are under way, and no more are taken at a time")

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
