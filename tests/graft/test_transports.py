"""Settings of transports that cannot work: each is told before anything is connected."""

import logging
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from graft.settings import load_settings
from graft.transports import warn_of_bare_password
from runtime.errors import ConfigurationError
from runtime.redis import parse_url
from stream.kafka.security import Security
from tests.secured import Certificates

_LOGIN = {
    "GRAFT_KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
    "GRAFT_KAFKA_SASL_MECHANISM": "SCRAM-SHA-512",
    "GRAFT_KAFKA_SASL_USERNAME": "graft",
    "GRAFT_KAFKA_SASL_PASSWORD": "hunter2",
}


def faults(environment: dict[str, str]) -> tuple[str, ...]:
    with pytest.raises(ConfigurationError) as caught:
        load_settings(environment)
    assert "hunter2" not in str(caught.value)
    return caught.value.faults


def test_the_password_comes_from_a_file_and_is_never_shown(tmp_path: Path, certificates: Certificates) -> None:
    (tmp_path / "password").write_text("hunter2\n")
    environment = _LOGIN | {"GRAFT_KAFKA_SASL_PASSWORD": "", "GRAFT_KAFKA_SSL_CAFILE": str(certificates.ca)}
    settings = load_settings(environment | {"GRAFT_KAFKA_SASL_PASSWORD_FILE": str(tmp_path / "password")})
    assert settings.kafka_security.client_settings() == {
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_plain_username": "graft",
        "sasl_plain_password": "hunter2",
        "ssl_cafile": str(certificates.ca),
    }
    assert "hunter2" not in repr(settings) + repr(settings.kafka_security) + settings.model_dump_json()


def test_the_certificates_of_redis_go_with_its_url(certificates: Certificates) -> None:
    environment = {
        "GRAFT_REDIS_URL": "rediss://app:hunter2@cache:6380/3",
        "GRAFT_REDIS_SSL_CA_CERTS": str(certificates.ca),
        "GRAFT_REDIS_SSL_CERTFILE": str(certificates.client.certificate),
        "GRAFT_REDIS_SSL_KEYFILE": str(certificates.client.key),
    }
    settings = load_settings(environment)
    assert parse_url(settings.redis_address).files == settings.redis_files
    assert str(parse_url(settings.redis_address)) == "rediss://cache:6380/3"


@pytest.mark.parametrize("url", ["rediss://app:hunter2\u2100@cache", "rediss://app:hunter2@[cache", "hunter2"])
def test_a_url_that_is_none_is_not_shown_beside_certificates_either(url: str, certificates: Certificates) -> None:
    environment = {"GRAFT_REDIS_URL": url, "GRAFT_REDIS_SSL_CA_CERTS": str(certificates.ca)}
    with pytest.raises(ConfigurationError) as caught:
        load_settings(environment).redis_address  # noqa: B018 - made when it is asked for
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("name", ["MECHANISM", "USERNAME", "PASSWORD"])
def test_a_login_needs_all_its_parts(name: str) -> None:
    (fault,) = faults(_LOGIN | {f"GRAFT_KAFKA_SASL_{name}": ""})
    assert fault.startswith(f"GRAFT_KAFKA_SASL_{name}: must be set")


def test_what_the_protocol_does_not_use_is_no_silent_loss_of_security(certificates: Certificates) -> None:
    environment = _LOGIN | {"GRAFT_KAFKA_SECURITY_PROTOCOL": "", "GRAFT_KAFKA_SSL_CAFILE": str(certificates.ca)}
    found = faults(environment | {"GRAFT_REDIS_SSL_CA_CERTS": str(certificates.ca)})
    assert [fault.partition(":")[0] for fault in found] == [
        "GRAFT_KAFKA_SASL_MECHANISM",
        "GRAFT_KAFKA_SASL_USERNAME",
        "GRAFT_KAFKA_SASL_PASSWORD",
        "GRAFT_KAFKA_SSL_CAFILE",
        "GRAFT_REDIS_SSL_CA_CERTS",
    ]
    assert "set that to SASL_SSL" in found[0]
    assert "write rediss:// there" in found[4]


@pytest.mark.parametrize(
    ("prefix", "ca"), [("GRAFT_KAFKA_SSL_", "GRAFT_KAFKA_SSL_CAFILE"), ("GRAFT_REDIS_SSL_", "GRAFT_REDIS_SSL_CA_CERTS")]
)
def test_files_that_cannot_be_used_are_named(prefix: str, ca: str, certificates: Certificates, tmp_path: Path) -> None:
    base = {"GRAFT_KAFKA_SECURITY_PROTOCOL": "SSL", "GRAFT_REDIS_URL": "rediss://cache"}
    certificate, key = f"{prefix}CERTFILE", f"{prefix}KEYFILE"
    client, stranger = certificates.client, certificates.stranger
    (tmp_path / "text").write_text("no certificate")

    assert faults(base | {ca: "/no/such.pem"}) == (f"{ca}: cannot read /no/such.pem: No such file or directory",)
    assert faults(base | {ca: str(tmp_path)}) == (f"{ca}: cannot read {tmp_path}: Is a directory",)
    (fault,) = faults(base | {ca: str(tmp_path / "text")})
    assert fault.startswith(f"{ca}: {tmp_path}/text has no certificates in PEM (")
    (fault,) = faults(base | {certificate: str(client.certificate)})
    assert fault == f"{key}: must be set too, since {certificate} is: a certificate needs its key"
    (fault,) = faults(base | {key: str(client.key)})
    assert fault.startswith(f"{certificate}: must be set too")
    (fault,) = faults(base | {certificate: str(client.certificate), key: str(stranger.key)})
    assert fault.startswith(f"{certificate}: {client.certificate} and the key {stranger.key} cannot be used together (")


def test_a_key_with_a_passphrase_asks_nobody_for_it(certificates: Certificates, tmp_path: Path) -> None:
    key = serialization.load_pem_private_key(certificates.client.key.read_bytes(), None)
    form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    locked = key.private_bytes(*form, serialization.BestAvailableEncryption(b"secret"))
    (tmp_path / "locked").write_bytes(locked)
    environment = {
        "GRAFT_KAFKA_SECURITY_PROTOCOL": "SSL",
        "GRAFT_KAFKA_SSL_CERTFILE": str(certificates.client.certificate),
        "GRAFT_KAFKA_SSL_KEYFILE": str(tmp_path / "locked"),
    }
    (fault,) = faults(environment)
    assert "a key with a passphrase cannot be used here" in fault


def test_a_password_that_leaves_the_machine_without_tls_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    bare = Security("SASL_PLAINTEXT", "PLAIN", "graft", "hunter2")
    for servers in ("localhost:9092", "127.0.0.1:9092,[::1]:9092"):
        warn_of_bare_password(bare, servers)
    warn_of_bare_password(Security("SASL_SSL", "PLAIN", "graft", "hunter2"), "kafka:9092")
    assert caplog.messages == []
    with caplog.at_level(logging.WARNING):
        warn_of_bare_password(bare, "localhost:9092,kafka:9092")
    (message,) = caplog.messages
    assert "without encryption; use SASL_SSL" in message
