"""How Kafka clients are built, and errors that say what to do when the brokers do not answer."""

import kafka
from graft.errors import ServiceUnavailableError
from kafka.errors import KafkaError


def wait_until_ready(bootstrap: str, seconds: float) -> None:
    """Return when the brokers answer a metadata request; ServiceUnavailableError after `seconds`."""
    try:
        client = kafka.KafkaAdminClient(bootstrap_servers=bootstrap, bootstrap_timeout_ms=int(seconds * 1000))
    except KafkaError as error:
        raise ServiceUnavailableError(f"Kafka at {bootstrap} does not answer ({type(error).__name__})") from error
    try:
        client.list_topics()
    finally:
        client.close()
