"""For all tests: their order, real servers (a Redis a session, a Kafka a module), and names that no other test uses."""

import gc
import logging
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import prometheus_client  # noqa: F401 - before Feast's import, which else turns every metric into a file
import pytest
from hypothesis import settings

from lab.dev.embedded_client import wait_after_early_answers
from lab.embedded import EmbeddedKafka, EmbeddedRedis
from lab.embedded.servers import ApacheKafka
from runtime.health import HEALTH
from runtime.redis import connect
from runtime.tracing import TRACING
from tests.disks import Disk, NotMountableError, mounted
from tests.forked import end_forked
from tests.secured import PASSWORD, Certificates, SecuredKafka

# No deadline: the machine may be busy. `make test` takes the same examples each time, so that it fails for a change of
# the code alone; `pytest --hypothesis-profile random` looks for new ones.
settings.register_profile("graft", deadline=None, derandomize=True)
settings.register_profile("random", deadline=None)
settings.load_profile("graft")

# Clients that an earlier test has left talk of their dead brokers in their own threads: no line for a later test.
logging.getLogger("kafka").propagate = False

wait_after_early_answers()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes() -> None:
    """No worker inherits what Feast's import by a conftest has put into the environment: metrics as files of all."""
    os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The long tests come first, so that no core waits for one at the end: they have a time-out of their own."""
    items.sort(key=_own_timeout_seconds, reverse=True)


def _own_timeout_seconds(item: pytest.Item) -> float:
    marker = item.get_closest_marker("timeout")
    return float(marker.args[0]) if marker else 0.0


def pytest_collection_finish() -> None:
    """What is imported by now stays; the garbage collector need not look through it again and again."""
    gc.freeze()


def pytest_unconfigure() -> None:
    """The processes that `tests.forked` keeps end with the session."""
    end_forked()


@pytest.fixture(autouse=True)
def _health_as_at_a_start() -> None:
    """A loop that a test ran in its own process does not stand still in the tests after it."""
    HEALTH.__init__()  # type: ignore[misc]


@pytest.fixture(autouse=True)
def _logging_as_at_a_start() -> Iterator[None]:
    """A command run inside this process, by a test or for a module, configures logging; no test inherits that."""
    root = logging.getLogger()
    root.setLevel(logging.WARNING)
    handlers = root.handlers[:]
    yield
    root.handlers[:] = handlers


@pytest.fixture
def spans() -> Iterator[Callable[[], list[Any]]]:
    """Turns on the traces of this process; when called, it turns them off and gives the spans that have ended."""
    pytest.importorskip("opentelemetry.sdk.trace", reason="graft[otel] is not installed")
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter  # noqa: PLC0415 - optional

    exporter = InMemorySpanExporter()
    TRACING.start("test", exporter)

    def ended() -> list[Any]:
        TRACING.end()
        return list(exporter.get_finished_spans())

    yield ended
    TRACING.end()


@pytest.fixture(scope="session")
def redis_server() -> Iterator[EmbeddedRedis]:
    """The session's Redis; shared, so a test that restarts a server starts its own."""
    with EmbeddedRedis() as server:
        yield server


@pytest.fixture
def redis_url(redis_server: EmbeddedRedis) -> str:
    """The address of an empty Redis: flushed before each test."""
    with connect(redis_server.url) as client:
        client.flushall()
    return redis_server.url


def pytest_addoption(parser: pytest.Parser) -> None:
    """`make test-apache`."""
    parser.addoption("--apache", action="store_true", help="the Apache Kafka of KAFKA_HOME is the embedded broker")


@pytest.fixture(scope="module")
def kafka(request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of the module's broker; a test's topics start with `topic_prefix`.

    Not the session's: with the topics of hundreds of tests on it, each client that asks for all of them needs a second.
    """
    if request.config.getoption("--apache"):
        yield request.getfixturevalue("apache_kafka").servers
        return
    with EmbeddedKafka() as broker:
        yield broker.servers


@pytest.fixture(scope="session")
def apache_kafka(kafka_home: Path) -> Iterator[ApacheKafka]:
    """The session's Apache Kafka; shared, so a test that kills a broker starts its own."""
    with ApacheKafka(kafka_home) as broker:
        yield broker


@pytest.fixture(scope="session")
def kafka_home() -> Path:
    """The folder of a real Apache Kafka, for `ApacheKafka`; skips the test without KAFKA_HOME."""
    home = os.environ.get("KAFKA_HOME")
    if not home:
        pytest.skip("KAFKA_HOME names no Apache Kafka")
    return Path(home)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """A certificate authority's, a server's and clients' certificates as files."""
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def secured_kafka(kafka_home: Path, certificates: Certificates) -> Iterator[SecuredKafka]:
    """The module's Apache Kafka with TLS and logins, where USER has PASSWORD."""
    with SecuredKafka(kafka_home, certificates) as made:
        made.set_password(PASSWORD)
        yield made


@pytest.fixture
def unique() -> str:
    """A lower-case name that no other test has; begins with a letter."""
    return f"t{uuid.uuid4().hex[:12]}"


@pytest.fixture
def topic_prefix(unique: str) -> str:
    """For `StreamConfig(topic_prefix=...)`: this test's own topics."""
    return f"{unique}-"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """A small disk of the test's own, which can be filled and made read-only."""
    with ExitStack() as stack:
        try:
            small = stack.enter_context(mounted(tmp_path / "disk"))
        except NotMountableError as error:
            pytest.skip(str(error))
        yield small
