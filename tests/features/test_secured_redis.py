"""Redis with TLS: what each of its clients takes, and what each says of a wrong password or certificate."""

import asyncio
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from feast.infra.online_stores.redis import RedisOnlineStore, RedisOnlineStoreConfig

from features.online.pipeline import Connection
from features.repo.store import connection_string
from lab.embedded import free_port
from runtime.errors import ConfigurationError, GraftError, ServiceUnavailableError
from runtime.redis import connect, parse_url, reaching, refuse_wrong_login, with_files
from runtime.tls import CertificateFiles
from tests.secured import PASSWORD, USER, Certificates, Pem, SecuredRedis


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("a folder, with, commas"))


@pytest.fixture(scope="module")
def server(certificates: Certificates) -> Iterator[SecuredRedis]:
    with SecuredRedis(certificates, certificates.server, mutual=True) as made:
        yield made


def files(certificates: Certificates, ca: Path | None = None, client: Pem | None = None) -> CertificateFiles:
    client = client or certificates.client
    return CertificateFiles(ca or certificates.ca, client.certificate, client.key)


def assert_refused(url: str, why: str) -> None:
    for use in (lambda: _ping(url), lambda: _feast(url), lambda: refuse_wrong_login(url)):
        with pytest.raises(GraftError, match=why) as caught:
            use()
        assert not isinstance(caught.value, ServiceUnavailableError)
        assert PASSWORD not in str(caught.value)
        assert "\n" not in str(caught.value)


def _ping(url: str) -> bool:
    with reaching(url), connect(url) as client:
        return bool(client.ping())


def _feast(url: str) -> bool:
    with reaching(url):
        client = RedisOnlineStore()._get_client(RedisOnlineStoreConfig(connection_string=connection_string(url)))
        with client:
            return bool(client.ping())


async def _answers(url: str) -> bool:
    connection = Connection(parse_url(url), lambda _: None)
    try:
        await connection.begin(5)
        exchange = connection.send([b"*1\r\n$4\r\nPING\r\n"])
        return exchange is not None and await connection.answer(exchange, 5) == [b"PONG"]
    finally:
        await connection.close()


def test_every_client_shows_its_certificate_and_password(server, certificates):
    url = with_files(server.url, files(certificates))
    assert _ping(url)
    assert _feast(url)
    assert asyncio.run(_answers(url))
    refuse_wrong_login(url)


def test_a_server_whose_certificate_somebody_else_has_signed_is_not_trusted(server, certificates):
    url = with_files(server.url, files(certificates, ca=certificates.other_ca))
    assert_refused(url, "its certificate does not hold: .*GRAFT_REDIS_SSL_")
    assert not asyncio.run(_answers(url))


def test_a_server_whose_certificate_has_expired_is_not_trusted(certificates):
    with SecuredRedis(certificates, certificates.expired) as server:
        url = with_files(server.url, CertificateFiles(certificates.ca))
        assert_refused(url, "its certificate does not hold: certificate has expired")


@pytest.mark.parametrize("client", [None, "stranger"])
def test_a_client_without_a_certificate_of_the_servers_authority_is_told_so(server, certificates, client):
    of_client = files(certificates, client=certificates.stranger) if client else CertificateFiles(certificates.ca)
    assert_refused(with_files(server.url, of_client), "refuses the TLS connection or this client's certificate")


def test_a_wrong_password_is_told_and_not_shown(server, certificates, caplog):
    url = with_files(server.url, files(certificates)).replace(PASSWORD, "hunter2")
    with caplog.at_level(logging.DEBUG):
        assert_refused(url, "WRONGPASS|invalid username-password")
        assert not asyncio.run(_answers(url))
    assert "refuses the password" in caplog.text
    assert "hunter2" not in caplog.text + repr(parse_url(url)) + str(parse_url(url))


def test_a_plain_client_is_told_that_the_port_speaks_tls(server):
    assert_refused(f"redis://{USER}:{PASSWORD}@localhost:{server.port}/0", "it speaks TLS; write rediss://")


def test_a_tls_client_is_told_that_the_port_does_not_speak_it(server, certificates):
    address = server.plain_url.removeprefix("redis://")
    with pytest.raises(GraftError, match="it does not speak TLS at this port"):
        refuse_wrong_login(with_files(f"rediss://{address}", CertificateFiles(certificates.ca)))


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110 - another thread's work
            await asyncio.sleep(0.01)


def test_a_scorer_that_runs_does_without_a_redis_whose_password_has_changed(certificates, caplog):
    async def session(server: SecuredRedis) -> None:
        connection = Connection(parse_url(with_files(server.url, CertificateFiles(certificates.ca))), lambda _: None)
        try:
            await connection.begin(5)
            assert connection.send([b"*1\r\n$4\r\nPING\r\n"]) is not None
            await asyncio.to_thread(server.set_password, "another")
            await until(lambda: "WRONGPASS" in caplog.text)
            assert connection.send([b"*1\r\n$4\r\nPING\r\n"]) is None
            await asyncio.to_thread(server.set_password, PASSWORD)
            await until(lambda: connection.send([b"*1\r\n$4\r\nPING\r\n"]) is not None)
        finally:
            await connection.close()

    with SecuredRedis(certificates, certificates.server) as server:
        asyncio.run(session(server))


def test_a_user_without_the_right_to_a_command_is_told_which(redis_server):
    with connect(redis_server.url) as client:
        client.execute_command("ACL", "SETUSER", "reader", "on", ">secret", "~*", "+get")
        with (
            pytest.raises(GraftError, match="no permissions to run the 'set' command"),
            reaching(redis_server.url),
            connect(redis_server.url.replace("//", "//reader:secret@")) as reader,
        ):
            reader.set("key", "value")
        client.execute_command("ACL", "DELUSER", "reader")


@pytest.mark.parametrize("scheme", ["redis", "rediss"])
def test_a_server_that_is_away_is_no_refusal(scheme, certificates):
    url = f"{scheme}://localhost:{free_port()}/0"
    refuse_wrong_login(url)
    with pytest.raises(ServiceUnavailableError, match="does not answer"):
        _ping(url)


@pytest.mark.parametrize(
    "url",
    ["rediss://cache?ssl_cert_reqs=none", "redis://cache?ssl_ca_certs=ca.pem", "rediss://cache?ssl_check_hostname=0"],
)
def test_an_option_that_not_every_client_takes_is_refused(url):
    with pytest.raises(ConfigurationError, match="no options of TLS but"):
        parse_url(url)
