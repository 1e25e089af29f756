"""Kafka's clients with TLS and logins at a true broker; needs KAFKA_HOME."""

import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import pytest
from kafka import TopicPartition

from lab.embedded import free_port
from runtime.errors import GraftError, ServiceUnavailableError
from runtime.tls import CertificateFiles
from stream.kafka import connection
from stream.kafka.security import Mechanism, Security, use
from stream.kafka.topics import ensure_topics
from tests.secured import PASSWORD, USER, Certificates
from tests.stream.conftest import await_that
from tests.stream.pair import stream_config, topics

pytestmark = pytest.mark.kafka_home
_MECHANISMS: tuple[Mechanism, ...] = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")


@pytest.fixture(autouse=True)
def plain_again() -> Iterator[None]:
    yield
    use(Security())


def login(mechanism: Mechanism, certificates: Certificates, password: str = PASSWORD, user: str = USER) -> Security:
    return Security("SASL_SSL", mechanism, user, password, CertificateFiles(certificates.ca))


def mutual(certificates: Certificates) -> Security:
    client = certificates.client
    return Security("SSL", files=CertificateFiles(certificates.ca, client.certificate, client.key))


def sends_and_reads(kafka_servers: str, topic_prefix: str) -> None:
    made = topics(topic_prefix)
    ensure_topics(kafka_servers, stream_config(topic_prefix, 1), made)
    at = TopicPartition(made.impressions, 0)
    with closing(connection.producer(kafka_servers)) as producer:
        producer.send(made.impressions, b"value").get(timeout=10)
    with closing(connection.consumer(kafka_servers)) as consumer:
        consumer.assign([at])
        consumer.seek(at, 0)
        found: list[bytes] = []
        await_that(
            lambda: found.extend(r.value for r in consumer.poll(200).get(at, [])) or found, 10, lambda: "nothing"
        )
    assert found == [b"value"]


@pytest.mark.parametrize("mechanism", _MECHANISMS)
def test_every_client_logs_in_over_tls(secured_kafka, certificates, topic_prefix, mechanism):
    use(login(mechanism, certificates))
    sends_and_reads(secured_kafka.address("SASL_SSL"), topic_prefix)


def test_every_client_shows_its_certificate(secured_kafka, certificates, topic_prefix):
    use(mutual(certificates))
    sends_and_reads(secured_kafka.address("SSL"), topic_prefix)


def test_a_login_without_tls_works_too(secured_kafka, certificates, topic_prefix):
    use(Security("SASL_PLAINTEXT", "SCRAM-SHA-512", USER, PASSWORD))
    sends_and_reads(secured_kafka.address("SASL_PLAINTEXT"), topic_prefix)


def assert_refused(kafka_servers: str, why: str) -> str:
    """Every client says why within the bound of a first contact, and that it is no outage."""
    told = ""
    for client in (connection.admin, connection.consumer, connection.producer):
        began = time.monotonic()
        with pytest.raises(GraftError, match=why) as caught:
            client(kafka_servers).close()
        assert not isinstance(caught.value, ServiceUnavailableError)
        assert time.monotonic() - began < 5
        assert kafka_servers in str(caught.value)
        assert "\n" not in str(caught.value)
        told += str(caught.value)
    return told


@pytest.mark.parametrize("mechanism", _MECHANISMS)
def test_a_wrong_password_is_told_at_once_and_not_shown(secured_kafka, certificates, mechanism):
    use(login(mechanism, certificates, "hunter2"))
    told = assert_refused(secured_kafka.address("SASL_SSL"), f"refuses the login of .*={USER} by {mechanism}")
    assert "hunter2" not in told


def test_an_unknown_user_is_told_at_once(secured_kafka, certificates):
    use(login("SCRAM-SHA-256", certificates, user="nobody"))
    assert_refused(secured_kafka.address("SASL_SSL"), "refuses the login of GRAFT_KAFKA_SASL_USERNAME=nobody")


def test_a_broker_whose_certificate_somebody_else_has_signed_is_not_trusted(secured_kafka, certificates):
    use(replace(login("PLAIN", certificates), files=CertificateFiles(certificates.other_ca)))
    assert_refused(secured_kafka.address("SASL_SSL"), "its certificate does not hold: .*GRAFT_KAFKA_SSL_")


def test_a_broker_whose_certificate_has_expired_is_not_trusted(secured_kafka, certificates):
    use(login("PLAIN", certificates))
    assert_refused(secured_kafka.address("EXPIRED"), "its certificate does not hold: certificate has expired")


def test_a_client_without_a_certificate_is_told_that_it_needs_one(secured_kafka, certificates):
    use(Security("SSL", files=CertificateFiles(certificates.ca)))
    assert_refused(secured_kafka.address("SSL"), "refuses the TLS connection or this client's certificate")


def test_a_client_with_a_strangers_certificate_is_told_so(secured_kafka, certificates):
    stranger = certificates.stranger
    use(Security("SSL", files=CertificateFiles(certificates.ca, stranger.certificate, stranger.key)))
    assert_refused(secured_kafka.address("SSL"), "refuses the TLS connection or this client's certificate")


@pytest.mark.parametrize("listener", ["SSL", "SASL_SSL"])
def test_a_plain_client_is_told_that_the_port_speaks_tls(secured_kafka, listener):
    assert_refused(secured_kafka.address(listener), "it speaks TLS; GRAFT_KAFKA_SECURITY_PROTOCOL is PLAINTEXT")


def test_a_tls_client_is_told_that_the_port_does_not_speak_it(secured_kafka, certificates):
    use(login("PLAIN", certificates))
    for servers in (secured_kafka.servers, secured_kafka.address("SASL_PLAINTEXT")):
        assert_refused(servers, "it does not speak TLS at this port")


def test_a_login_where_none_is_taken_is_told(secured_kafka):
    use(Security("SASL_PLAINTEXT", "PLAIN", USER, PASSWORD))
    assert_refused(secured_kafka.servers, "refuses the login")


def test_a_broker_that_is_away_is_no_refusal(certificates):
    use(login("PLAIN", certificates))
    with pytest.raises(ServiceUnavailableError, match="does not answer"):
        connection.admin(f"127.0.0.1:{free_port()}")


def test_a_consumer_whose_password_is_changed_meanwhile_ends_with_it(secured_kafka, certificates, topic_prefix):
    servers, made = secured_kafka.address("SASL_SSL"), topics(topic_prefix)
    use(login("SCRAM-SHA-256", certificates))
    ensure_topics(servers, stream_config(topic_prefix, 1), made)
    with closing(connection.consumer(servers)) as consumer:
        consumer.assign([TopicPartition(made.impressions, 0)])
        consumer.seek(TopicPartition(made.impressions, 0), 0)
        assert consumer.poll(200) == {}
        secured_kafka.set_password("another")
        try:
            for lost in list(consumer._manager._conns.values()):
                consumer._net.call_soon(lost.close)
            with pytest.raises(GraftError, match="refuses the login"):
                await_that(lambda: consumer.poll(100) and False, 20, lambda: "not told")
        finally:
            secured_kafka.set_password(PASSWORD)
