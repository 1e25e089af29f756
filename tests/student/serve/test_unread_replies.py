"""Clients that ask and do not read: they cost a bounded time, and nobody else their connection."""

import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from student.serve.connections import CLOSED, Limits
from student.versions.registry import Registry
from tests.student.serve.test_limits import post_of, scorer, until_closed
from tests.student.serve.test_server import BODY, publish, until

LARGE = json.dumps({**BODY, "item_ids": [10] * 1_000, "explain": True}).encode()
"""Its reply has some 150 kB."""


@pytest.fixture(autouse=True)
def _small_buffers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system takes some kB of each connection's replies; it takes megabytes otherwise."""
    create = socket.create_server

    def small(*arguments: Any, **settings: Any) -> socket.socket:
        made = create(*arguments, **settings)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_096)  # the connections' own is the listener's
        return made

    monkeypatch.setattr(socket, "create_server", small)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    registry = Registry(tmp_path / "versions")
    publish(registry)
    return registry


@contextmanager
def unread(client: httpx.Client, requests: int) -> Iterator[socket.socket]:
    """A connection with so many large replies of which nothing is read."""
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        one.settimeout(5)
        one.connect(("127.0.0.1", client.base_url.port))
        one.sendall(post_of("/score", body=LARGE) * requests)
        yield one


def test_a_client_that_does_not_read_is_closed_and_others_are_answered(registry: Registry, redis_url: str) -> None:
    closed = CLOSED.labels("reply")
    before = closed._value.get()
    with scorer(registry, redis_url, Limits(connections=4, send_seconds=1.0)) as client, ExitStack() as stack:
        waiting = [stack.enter_context(unread(client, 3)) for _ in range(4)]
        until(lambda: closed._value.get() - before == 4, "the connections to be closed", 30)
        with httpx.Client(base_url=client.base_url, timeout=10) as other:
            assert other.post("/score", json=BODY).status_code == 200
        for one in waiting:
            until_closed(one)


def test_a_connection_with_an_unread_reply_that_gives_way_is_gone(registry: Registry, redis_url: str) -> None:
    with scorer(registry, redis_url, Limits(connections=1, send_seconds=60.0)) as client, unread(client, 1):
        count = CLOSED.labels("connections")
        until(lambda: open_at(client) == 1, "the connection alone")
        before = count._value.get()
        with httpx.Client(base_url=client.base_url, timeout=10) as other:
            until(lambda: other.post("/score", json=BODY).status_code == 200, "it to give way")
            until(lambda: open_at(client) == 1, "it to be gone", 30)
        assert count._value.get() > before


def open_at(client: httpx.Client) -> int:
    """The connections that the scorer has open; it is of this process."""
    found = psutil.Process().net_connections("tcp4")
    return sum(one.laddr.port == client.base_url.port and bool(one.raddr) for one in found)
