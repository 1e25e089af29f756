"""Endpoints and credentials of one process: environment variables GRAFT_NAME, or files named by GRAFT_NAME_FILE."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from graft.faults import faults_of
from graft.removed import VARIABLES
from graft.transports import faults_of_transports
from runtime.errors import ConfigurationError, did_you_mean
from runtime.redis import with_files
from runtime.telemetry import LogFormat
from runtime.tls import CertificateFiles
from runtime.tracing import Traces
from stream.kafka.security import Mechanism, Protocol, Security

LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]

PREFIX = "GRAFT_"
_FILE_SUFFIX = "_file"


class Settings(BaseModel):
    """What differs between machines; all else stands in the project file."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    project: Path = Field(
        default=Path(), description="the project folder, which has graft.toml; --project overrides it"
    )
    kafka: str = Field(
        default="localhost:9092",
        pattern=r"^[^\s,/]+:\d{1,5}(,[^\s,/]+:\d{1,5})*$",
        description="Kafka's addresses, with commas between them",
        json_schema_extra={"allowed": "host:port, such as localhost:9092 (several with commas)"},
    )
    kafka_security_protocol: Protocol = Field(
        default="PLAINTEXT", description="SSL: with TLS; SASL: with user and password; SASL_SSL: with both"
    )
    kafka_sasl_mechanism: Mechanism | None = Field(
        default=None, description="how user and password are sent to Kafka, for SASL_SSL and SASL_PLAINTEXT"
    )
    kafka_sasl_username: str | None = Field(default=None, description="Kafka's user")
    kafka_sasl_password: SecretStr | None = Field(
        default=None, description="that user's password; GRAFT_KAFKA_SASL_PASSWORD_FILE names a file with it"
    )
    kafka_ssl_cafile: Path | None = Field(
        default=None, description="the certificates (PEM) that vouch for Kafka's brokers; none: those of the system"
    )
    kafka_ssl_certfile: Path | None = Field(
        default=None, description="this client's certificate (PEM), for brokers that ask for one"
    )
    kafka_ssl_keyfile: Path | None = Field(
        default=None, description="the key of that certificate (PEM, without a passphrase)"
    )
    redis_url: SecretStr = Field(
        default=SecretStr("redis://localhost:6379/0"),
        description="Redis' address, with its password if it has one; rediss:// with TLS",
    )
    redis_ssl_ca_certs: Path | None = Field(
        default=None, description="the certificates (PEM) that vouch for a rediss:// server; none: those of the system"
    )
    redis_ssl_certfile: Path | None = Field(
        default=None, description="this client's certificate (PEM), for a Redis that asks for one"
    )
    redis_ssl_keyfile: Path | None = Field(
        default=None, description="the key of that certificate (PEM, without a passphrase)"
    )
    versions: Path = Field(
        default=Path("versions"), description="the version registry's folder, relative to where the command runs"
    )
    instance: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9._-]{1,64}$",
        description="this process's name among those of its command; Kafka lets it back in by it. none: its host's "
        "name",
        json_schema_extra={"allowed": "1 to 64 letters, digits, '.', '_' and '-'"},
    )
    metrics_host: str = Field(
        default="127.0.0.1", description="the address at which this process serves health and metrics"
    )
    metrics_port: int | None = Field(
        default=None,
        ge=1,
        le=65_535,
        description="the port of /healthz, /readyz and /metrics; none: no port, but the scorer uses its HTTP port",
    )
    http_host: str = Field(
        default="127.0.0.1", description="the address at which the scorer listens; --host overrides it"
    )
    http_port: int = Field(default=8080, ge=1, le=65_535, description="the scorer's port; --port overrides it")
    admin_host: str = Field(default="127.0.0.1", description="the address that goes with GRAFT_ADMIN_PORT")
    admin_port: int | None = Field(
        default=None,
        ge=1,
        le=65_535,
        description="the port of the scorer's /v2 and /v2/models without inference; none: its HTTP port",
    )
    http_connections: int = Field(
        default=1_000, ge=1, le=1_000_000, description="the most connections that the scorer keeps open at a time"
    )
    http_requests: int = Field(
        default=32,
        ge=1,
        le=100_000,
        description="the most requests that the scorer has under way; more get a 503 with Retry-After at once",
    )
    http_workers: int = Field(
        default=1,
        ge=1,
        le=256,
        description="the scorer's processes, each for one core and with limits of its own; --workers overrides it",
    )
    items_in_memory: int = Field(
        default=100_000,
        ge=1_000,
        le=100_000_000,
        description="the most items whose features a scorer process keeps in its memory, for each feature spec",
    )
    items_max_age_seconds: float = Field(
        default=300.0,
        ge=0,
        le=86_400,
        description="age at which an item in a scorer's memory is read again, even if Redis has told of no change; at "
        "most 10 where Redis cannot tell of changes; 0: each request reads all its items",
    )
    http_tokens_file: Path | None = Field(
        default=None,
        description="file of the bearer tokens of the scorer's clients, one a line, read again when it changes; none: "
        "anyone may ask",
    )
    http_sample: float = Field(
        default=0.01,
        ge=0,
        le=1,
        description="the share of served rows that Redis keeps for the learner to compare with its examples; only of "
        "requests that name their impressions",
    )
    teacher_token_file: Path | None = Field(
        default=None,
        description="a file with the bearer token for the teacher's server, read for each request; none: no token",
    )
    teacher_ca_file: Path | None = Field(
        default=None,
        description="the certificates (PEM) that vouch for the teacher's server; none: those of the system",
    )
    traces: Traces = Field(
        default="off",
        description="otlp: OpenTelemetry's spans are sent, to where its own variables (OTEL_...) say (docs/traces.md)",
    )
    log_format: LogFormat = Field(
        default="text", description="json: each log line is one JSON object (docs/commands.md)"
    )
    log_level: LogLevel = Field(
        default="INFO", description="the lowest level that is logged; --verbose and --quiet override it"
    )

    @property
    def redis_address(self) -> str:
        """Redis' URL with its password and the certificates' files: not for messages."""
        return with_files(self.redis_url.get_secret_value(), self.redis_files)

    @property
    def redis_files(self) -> CertificateFiles:
        """The certificates for Redis."""
        return CertificateFiles(self.redis_ssl_ca_certs, self.redis_ssl_certfile, self.redis_ssl_keyfile)

    @property
    def kafka_security(self) -> Security:
        """How Kafka is reached."""
        files = CertificateFiles(self.kafka_ssl_cafile, self.kafka_ssl_certfile, self.kafka_ssl_keyfile)
        password = self.kafka_sasl_password.get_secret_value() if self.kafka_sasl_password else None
        return Security(
            self.kafka_security_protocol, self.kafka_sasl_mechanism, self.kafka_sasl_username, password, files
        )


def load_settings(environment: Mapping[str, str] = os.environ) -> Settings:
    """Settings from the environment; ConfigurationError for an unknown GRAFT_ name or a bad value, all at once.

    An empty variable counts as not set. A message never holds the value of a secret or of a file.
    """
    values: dict[str, str] = {}
    from_files: set[str] = set()
    faults: list[str] = []
    for variable in sorted(name for name in environment if name.startswith(PREFIX) and environment[name]):
        name = variable.removeprefix(PREFIX).lower()
        setting = name if name in Settings.model_fields else name.removesuffix(_FILE_SUFFIX)
        if setting not in Settings.model_fields:
            known = [PREFIX + field.upper() for field in Settings.model_fields]
            advice = VARIABLES.get(variable)
            faults.append(
                f"{variable}: was removed; {advice}"
                if advice
                else f"{variable}: no such setting{did_you_mean(variable, known)}"
            )
        elif setting in values:
            faults.append(f"{variable}: {PREFIX}{setting.upper()} is set as well; keep one of the two")
        elif setting == name:
            values[setting] = environment[variable]
        else:
            from_files.add(setting)
            try:
                values[setting] = Path(environment[variable]).read_text("utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                faults.append(f"{variable}: cannot read the file that it names: {error}")
    return _validated(values, from_files, faults)


def _validated(values: Mapping[str, str], from_files: set[str], faults: list[str]) -> Settings:
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        faults += [_in_variable(fault, from_files) for fault in faults_of(error, Settings)]
    else:
        faults += faults_of_transports(
            settings.kafka_security, settings.redis_url.get_secret_value(), settings.redis_files
        )
    if faults:
        raise ConfigurationError(faults)
    return settings


def _in_variable(fault: str, from_files: set[str]) -> str:
    """The fault of a setting with its variable's name, and without the value that stands in a file."""
    setting, _, rest = fault.partition(":")
    if setting in from_files:
        rule, _, _ = rest.partition(", got ")
        return f"{PREFIX}{(setting + _FILE_SUFFIX).upper()}:{rule}, and what the file holds is not"
    return f"{PREFIX}{setting.upper()}:{rest}"
