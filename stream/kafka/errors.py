"""Errors that another try does not end: a broker that refuses this client, a record that cannot be decoded."""

from typing import Any, NamedTuple, TypeVar

from kafka.errors import (
    IllegalSaslStateError,
    IncompatibleBrokerVersion,
    RequestTimedOutError,
    SaslAuthenticationFailedError,
    UnsupportedSaslMechanismError,
)
from pydantic import BaseModel, ValidationError

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


Record = TypeVar("Record", bound=BaseModel)


class Undecodable(NamedTuple):
    """Which records cannot be decoded, and why. What follows `last` may be sound."""

    topic: str
    partition: int
    first: int
    last: int
    fault: str

    def __str__(self) -> str:
        offsets = f"offset {self.first}" if self.first == self.last else f"offsets {self.first} to {self.last}"
        return f"{self.topic}-{self.partition}: {offsets} cannot be decoded ({self.fault})"


class UndecodableError(GraftError):
    """What a consumer's poll raises in place of the decoder's error, again and again until it is moved elsewhere."""

    def __init__(
        self, records: Undecodable, advice: str = "restore the partition from another replica or from a backup"
    ) -> None:
        self.records = records
        self.place = {"topic": records.topic, "partition": records.partition, "offset": records.first}
        super().__init__(f"{records}; {advice}")


def decoded(record: Any, model: type[Record]) -> Record:
    """A record of kafka-python as the `model` that graft wrote; UndecodableError where its value is none."""
    try:
        return model.model_validate_json(record.value)
    except ValidationError as error:
        first = error.errors()[0]
        fault = f"not a {model.__name__}: {'.'.join(map(str, first['loc'])) or 'value'}: {first['msg']}"
        raise UndecodableError(
            Undecodable(record.topic, record.partition, record.offset, record.offset, fault)
        ) from error
