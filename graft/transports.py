"""What is wrong with the settings of Kafka's and Redis' transports, before anything is connected."""

import ipaddress
import logging
import ssl
from collections.abc import Iterator
from pathlib import Path

from runtime.tls import CertificateFiles
from stream.kafka.security import Security

_log = logging.getLogger(__name__)

_KAFKA = "GRAFT_KAFKA_SSL_"
_REDIS = "GRAFT_REDIS_SSL_"


def faults_of_transports(kafka: Security, redis_url: str, redis_files: CertificateFiles) -> list[str]:
    """Every combination of settings that cannot work, and every file that cannot be used; none where all is well."""
    return [*_of_kafka(kafka), *_of_redis(redis_url, redis_files)]


def warn_of_bare_password(kafka: Security, kafka_servers: str) -> None:
    """Log a warning where a password leaves this machine without TLS."""
    hosts = [server.rpartition(":")[0] for server in kafka_servers.split(",")]
    if kafka.protocol == "SASL_PLAINTEXT" and not all(map(_is_loopback, hosts)):
        _log.warning(
            "GRAFT_KAFKA_SECURITY_PROTOCOL=SASL_PLAINTEXT: login and events go to %s without encryption; use SASL_SSL",
            kafka_servers,
        )


def _of_kafka(kafka: Security) -> Iterator[str]:
    protocol = f"GRAFT_KAFKA_SECURITY_PROTOCOL={kafka.protocol}"
    login = {
        "MECHANISM": (kafka.mechanism, "to PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512"),
        "USERNAME": (kafka.username, "to Kafka's user"),
        "PASSWORD": (kafka.password, "or GRAFT_KAFKA_SASL_PASSWORD_FILE to a file that holds it"),
    }
    for name, (value, advice) in login.items():
        if kafka.has_login and not value:
            yield f"GRAFT_KAFKA_SASL_{name}: must be set, {advice}, since {protocol} logs in"
        if value and not kafka.has_login:
            yield f"GRAFT_KAFKA_SASL_{name}: is set, but {protocol} does not log in; set that to SASL_SSL"
    names = (f"{_KAFKA}CAFILE", f"{_KAFKA}CERTFILE", f"{_KAFKA}KEYFILE")
    if kafka.has_tls:
        yield from _of_files(kafka.files, names)
    else:
        yield from _unused(kafka.files, names, f"{protocol} has no TLS; set that to SSL or SASL_SSL")


def _of_redis(url: str, files: CertificateFiles) -> Iterator[str]:
    names = (f"{_REDIS}CA_CERTS", f"{_REDIS}CERTFILE", f"{_REDIS}KEYFILE")
    if url.startswith("rediss:"):
        yield from _of_files(files, names)
    else:
        yield from _unused(files, names, "GRAFT_REDIS_URL has no TLS; write rediss:// there")


def _unused(files: CertificateFiles, names: tuple[str, str, str], why: str) -> Iterator[str]:
    return (f"{name}: is set, but {why}" for name, path in zip(names, files, strict=True) if path is not None)


def _of_files(files: CertificateFiles, names: tuple[str, str, str]) -> Iterator[str]:
    unreadable = [fault for name, path in zip(names, files, strict=True) if path and (fault := _of_file(name, path))]
    yield from unreadable
    ca, certificate, key = names
    if (files.certificate is None) != (files.key is None):
        there, missing = (certificate, key) if files.certificate else (key, certificate)
        yield f"{missing}: must be set too, since {there} is: a certificate needs its key"
    elif not unreadable:
        if files.ca and (why := _unusable(CertificateFiles(files.ca))):
            yield f"{ca}: {files.ca} has no certificates in PEM ({why})"
        if files.certificate and (why := _unusable(CertificateFiles(None, files.certificate, files.key))):
            yield f"{certificate}: {files.certificate} and the key {files.key} cannot be used together ({why})"


def _of_file(name: str, path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            file.read(1)
    except OSError as error:
        return f"{name}: cannot read {path}: {error.strerror}"
    return None


def _unusable(files: CertificateFiles) -> str | None:
    try:
        files.context()
    except ssl.SSLError as error:
        return getattr(error, "reason", None) or str(error.args[-1])  # one of ours has none
    return None


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
