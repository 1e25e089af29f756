"""Brokers that refuse this client: its login or certificate, or that cannot be trusted; an end, and no outage."""

from typing import Any

from kafka.errors import (
    IllegalSaslStateError,
    IncompatibleBrokerVersion,
    RequestTimedOutError,
    SaslAuthenticationFailedError,
    UnsupportedSaslMechanismError,
)

from runtime.errors import GraftError
from runtime.tls import NO_TLS, answers_plainly, refusal, refused_by, speaks_tls
from stream.kafka.security import used

_API_VERSIONS = bytes.fromhex("0000000a 0012 0000 00000000 ffff")
"""Kafka's request ApiVersions, version 0, of a client without a name: every listener answers it before a login."""

_LOGINS = (SaslAuthenticationFailedError, UnsupportedSaslMechanismError, IllegalSaslStateError)


class BrokerRefusedError(IncompatibleBrokerVersion, GraftError):  # type: ignore[misc] # kafka-python is untyped
    """Another try with the same settings would fail too. What a client's requests to that broker raise."""

    def __str__(self) -> str:
        return str(self.args[0])


def refusal_of(error: BaseException | None, node: Any, connection: Any) -> str | None:
    """Why another try to reach a broker would fail too; None for every other end of a connection."""
    security = used()
    if isinstance(error, BrokerRefusedError):
        return None
    if isinstance(error, _LOGINS):
        told = error.args[0] if error.args else type(error).__name__
        return (
            f"it refuses the login of GRAFT_KAFKA_SASL_USERNAME={security.username} by {security.mechanism} over "
            f"{security.protocol} ({told})"
        )
    is_new = error is not None and connection.initializing  # it ended before it could be used
    if security.has_tls:
        why = refusal(error) or (_tls_refusal(node.host, node.port) if is_new else None)
        return f"{why}; GRAFT_KAFKA_SSL_... name the certificates" if why else None
    may_speak_tls = is_new and connection.transport and not isinstance(error, RequestTimedOutError)
    if may_speak_tls and speaks_tls(node.host, node.port):
        return f"it speaks TLS; GRAFT_KAFKA_SECURITY_PROTOCOL is {security.protocol}, set SSL or SASL_SSL"
    return None


def _tls_refusal(host: str, port: int) -> str | None:
    why = refused_by(host, port, used().files)
    return why or (NO_TLS if answers_plainly(host, port, _API_VERSIONS) else None)
