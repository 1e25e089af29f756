"""Brokers that refuse this client: its login or certificate, or that cannot be trusted; an end, and no outage.

kafka-python 3.0.12 tries such a broker again for ever, and says why in its log alone: a bootstrap ends with a time-out,
a poll gives nothing. It gives up at once only for a broker that is too old, so a refusal comes as such an error.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

from kafka.errors import (
    IllegalSaslStateError,
    IncompatibleBrokerVersion,
    RequestTimedOutError,
    SaslAuthenticationFailedError,
    UnsupportedSaslMechanismError,
)
from kafka.net.manager import KafkaConnectionManager
from kafka.net.transport import KafkaSSLTransport, KafkaTCPTransport

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


def name_refusals() -> None:
    """Let every client of this process know refusals; called once, when this room's door is opened."""
    connect = KafkaConnectionManager._connect  # noqa: SLF001 - the one place that knows broker and connection

    @wraps(connect)
    async def noted(manager: Any, node: Any, connection: Any, *arguments: Any, **settings: Any) -> None:
        lost, refused = connection.connection_lost, _refusals(manager)

        def connection_lost(error: BaseException | None) -> None:
            if why := _why(error, node, connection):
                refused[node.node_id] = error = BrokerRefusedError(f"Kafka at {node.host}:{node.port}: {why}")
            lost(error)

        connection.connection_lost = connection_lost
        await connect(manager, node, connection, *arguments, **settings)
        if connection.connected:
            refused.pop(node.node_id, None)

    KafkaConnectionManager._connect = noted  # noqa: SLF001
    for transport in (KafkaTCPTransport, KafkaSSLTransport):
        transport._sock_recv = _read_to_the_end(transport._sock_recv)  # noqa: SLF001


def _read_to_the_end(receive: Callable[[Any], tuple[bytes, Any]]) -> Callable[[Any], tuple[bytes, Any]]:
    """What came before the end of a connection is read, such as a broker's last words to who may not log in.

    kafka-python 3.0.12 drops it where the end comes with it. The next call finds the end again.
    """

    @wraps(receive)
    def received(transport: Any) -> tuple[bytes, Any]:
        data, error = receive(transport)
        return (data, None) if data else (data, error)

    return received


def raise_refusal(manager: Any) -> None:
    """GraftError where the last connection of a client's manager to one of its brokers was refused."""
    for error in list(_refusals(manager).values()):
        raise GraftError(str(error)) from error


def _refusals(manager: Any) -> dict[Any, BrokerRefusedError]:
    """Of one client: its brokers that refuse it."""
    refused: dict[Any, BrokerRefusedError] = vars(manager).setdefault("graft_refusals", {})
    return refused


def _why(error: BaseException | None, node: Any, connection: Any) -> str | None:
    """Why another try would fail too; None for every other end of a connection."""
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
