"""The socket on which a scorer listens."""

import socket

from runtime.errors import GraftError

_BACKLOG = 2_048
"""Connections that wait to be taken."""


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens at an address; GraftError when it cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise GraftError(
            f"cannot listen on {host}:{port}: {error.strerror or error}; choose another one with --host and --port"
        ) from None
