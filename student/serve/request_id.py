"""The id by which a client finds its request again: in the reply's headers, the log and sampled rows."""

import re

from starlette.requests import Request

_REQUEST_ID = re.compile(r"[!-~]{1,128}")


def request_id_of(request: Request) -> str | None:
    """The request's X-Request-ID, which the reply repeats; None where it has none that a log line can hold."""
    request_id = request.headers.get("x-request-id", "")
    return request_id if _REQUEST_ID.fullmatch(request_id) else None
