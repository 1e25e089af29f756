"""The id by which a request is found again: in the reply's headers, the log and sampled rows."""

import re

from starlette.datastructures import Headers
from starlette.requests import Request

from runtime.tracing import HEADER, trace_id_of

_REQUEST_ID = re.compile(r"[!-~]{1,128}")
_NAMES = {b"x-request-id", HEADER.encode()}


def request_id_of(request: Request) -> str | None:
    """As `request_id_in` the request's headers."""
    return request_id_in(request.headers)


def request_id_in(headers: Headers) -> str | None:
    """X-Request-ID, or the trace id of traceparent; None where there is neither in an allowed form.

    Both can stand in a log line as they are. traceparent: https://www.w3.org/TR/trace-context/.
    """
    if _NAMES.isdisjoint([name for name, _ in headers.raw]):  # most often; a look-up that finds none is slow
        return None
    request_id = headers.get("x-request-id", "")
    if _REQUEST_ID.fullmatch(request_id):
        return request_id
    return trace_id_of(headers.get(HEADER, ""))
