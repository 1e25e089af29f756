import time

import pytest

from lab.embedded import EmbeddedRedis, free_port
from runtime.errors import ConfigurationError, ServiceUnavailableError
from runtime.redis import connect, parse_url, reaching


def test_an_address_is_shown_without_its_login() -> None:
    address = parse_url("rediss://app:hunter2@cache:6380/3")
    assert (address.host, address.port, address.db) == ("cache", 6380, 3)
    assert (address.username, address.password, address.tls) == ("app", "hunter2", True)
    assert str(address) == "rediss://cache:6380/3"


def test_an_address_has_the_usual_port_and_database() -> None:
    assert str(parse_url("redis://cache")) == "redis://cache:6379/0"


@pytest.mark.parametrize(
    "url",
    [
        "http://:hunter2@cache",
        "cache:6379",
        "redis://:hunter2@cache:port/0",
        "redis://:hunter2/3@cache:6379",  # the text before an unescaped / or # passes for a port or a host
        "redis://:hunter2#3@cache:6379",
        "redis://hunter2/3@cache:6379",
        "redis://:hunter2\u2100@cache:6379",  # urllib shows the login in its error
    ],
)
def test_what_is_no_address_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(ConfigurationError, match="GRAFT_REDIS_URL") as caught:
        parse_url(url)
    assert "hunter2" not in str(caught.value)


def test_an_absent_redis_is_named_without_its_password() -> None:
    url = f"redis://:hunter2@127.0.0.1:{free_port()}/0"
    with pytest.raises(ServiceUnavailableError, match="docker compose up -d redis") as caught, reaching(url):
        connect(url, timeout_seconds=1).ping()
    assert "hunter2" not in str(caught.value)


def test_a_redis_that_is_full_is_to_be_waited_for() -> None:
    with EmbeddedRedis() as server:
        client = connect(server.url)
        client.config_set("maxmemory", "1")
        with pytest.raises(ServiceUnavailableError, match="takes no writes"), reaching(server.url):
            client.set("key", "value")


def test_a_redis_that_cannot_save_is_to_be_waited_for_by_a_command_and_by_a_pipeline() -> None:
    with EmbeddedRedis() as server, connect(server.url) as client:
        (server.folder / "dump.rdb").mkdir()  # where its dump should be written
        client.config_set("save", "86400 1")
        client.bgsave()
        while client.info("persistence")["rdb_last_bgsave_status"] == "ok":
            time.sleep(0.01)
        pipeline = client.pipeline(transaction=False).set("key", "of pipeline caused error: OOM")
        for write in (lambda: client.set("key", "value"), pipeline.execute):
            with pytest.raises(ServiceUnavailableError, match=r"refuses for now: .*MISCONF"), reaching(server.url):
                write()
