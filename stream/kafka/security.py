"""How this process's Kafka clients log in and whom they trust; kafka itself is not imported here.

A process has one Kafka. `use` is called once, before its first client.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

from runtime.tls import CertificateFiles

Protocol = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
Mechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]

_NO_FILES = CertificateFiles()


@dataclass(frozen=True)
class Security:
    """The transport of Kafka's clients, and their login where the protocol has one."""

    protocol: Protocol = "PLAINTEXT"
    mechanism: Mechanism | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    files: CertificateFiles = _NO_FILES

    @property
    def has_tls(self) -> bool:
        """Whether what is sent is encrypted."""
        return self.protocol.endswith("SSL")

    @property
    def has_login(self) -> bool:
        """Whether clients log in with a user and a password."""
        return self.protocol.startswith("SASL")

    def client_settings(self) -> dict[str, Any]:
        """What kafka-python's clients are given. They read the files anew at each connection."""
        settings: dict[str, Any] = {"security_protocol": self.protocol}
        if self.has_login:
            settings |= {
                "sasl_mechanism": self.mechanism,
                "sasl_plain_username": self.username,
                "sasl_plain_password": self.password,
            }
        if self.has_tls:
            files = zip(("ssl_cafile", "ssl_certfile", "ssl_keyfile"), self.files, strict=True)
            settings |= {name: str(path) for name, path in files if path is not None}
        return settings


_used = Security()


def use(security: Security) -> None:
    """Let every client that this process makes from now on connect so."""
    global _used  # noqa: PLW0603 - as with logging: one for the process
    _used = security


def used() -> Security:
    """What `use` was last given; without it plain text and no login."""
    return _used
