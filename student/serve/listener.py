"""The sockets on which a scorer listens: one for all, or further ones for what others than its clients ask."""

import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Literal, NamedTuple

from runtime.errors import GraftError

Group = Literal["scores", "administration", "metrics"]
"""Endpoints that may have a listener of their own; those that have none are at that of the scores."""

Listeners = Mapping[Group, socket.socket]

_BACKLOG = 2_048
"""Connections that wait to be taken."""


class Address(NamedTuple):
    """Where to listen."""

    host: str
    port: int
    settings: str
    """What a user changes to listen elsewhere."""


@contextmanager
def listen(addresses: Mapping[Group, Address]) -> Iterator[Listeners]:
    """Sockets that listen at these addresses, closed with the block; GraftError when one cannot be had."""
    with ExitStack() as stack:
        yield {group: stack.enter_context(_listener(address)) for group, address in addresses.items()}


def _listener(address: Address) -> socket.socket:
    host, port, settings = address
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise GraftError(
            f"cannot listen on {host}:{port}: {error.strerror or error}; choose another one with {settings}"
        ) from None
