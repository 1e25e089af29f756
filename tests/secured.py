"""Certificates of the tests' own, and servers that ask for them: a Redis and an Apache Kafka with TLS and logins."""

import select
import socket
import socketserver
import ssl
import threading
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple, Self

import trustme
from cryptography.hazmat.primitives import serialization
from kafka.admin import ScramMechanism, UserScramCredentialUpsertion

from lab.embedded import EmbeddedRedis
from lab.embedded.servers import ApacheKafka
from runtime.redis import connect
from stream.kafka import connection
from stream.kafka.security import Security, use, used

USER, PASSWORD = "graft", "pa55,word=x"
_HOSTS = ("localhost", "127.0.0.1")


class Pem(NamedTuple):
    """A certificate and its key as files, and both in one as Kafka wants them."""

    certificate: Path
    key: Path
    both: Path


class Certificates:
    """A certificate authority, and what it has signed, as files in `folder`."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._authority = trustme.CA()
        self.ca = folder / "ca.pem"
        self._authority.cert_pem.write_to_path(self.ca)
        self.server = self._issued("server", self._authority)
        self.client = self._issued("client", self._authority)
        self.expired = self._issued("expired", self._authority, datetime.now(UTC) - timedelta(days=1))
        stranger = trustme.CA()
        self.other_ca = folder / "other-ca.pem"
        stranger.cert_pem.write_to_path(self.other_ca)
        self.stranger = self._issued("stranger", stranger)

    def _issued(self, name: str, authority: trustme.CA, until: datetime | None = None) -> Pem:
        made = authority.issue_cert(*_HOSTS, not_before=until and until - timedelta(days=9), not_after=until)
        key = serialization.load_pem_private_key(made.private_key_pem.bytes(), None).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        chain = b"".join(part.bytes() for part in made.cert_chain_pems)
        files = Pem(*(self._folder / f"{name}.{suffix}" for suffix in ("crt", "key", "pem")))
        for path, content in zip(files, (chain, key, key + chain), strict=True):
            path.write_bytes(content)
        return files


class SecuredRedis:
    """The embedded Redis, which has no TLS, with a user who has a password, behind a proxy that has.

    `mutual`: the proxy asks for a client's certificate.
    """

    def __init__(self, certificates: Certificates, server: Pem, *, mutual: bool = False) -> None:
        self._redis = EmbeddedRedis()
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=certificates.ca)
        self._context.load_cert_chain(server.certificate, server.key)
        self._context.verify_mode = ssl.CERT_REQUIRED if mutual else ssl.CERT_NONE
        self._proxy = socketserver.ThreadingTCPServer(("127.0.0.1", 0), self._pass_on)
        self._proxy.daemon_threads = True
        self.port = int(self._proxy.server_address[1])

    @property
    def url(self) -> str:
        """For GRAFT_REDIS_URL beside GRAFT_REDIS_SSL_CA_CERTS and the others."""
        return f"rediss://{USER}:{PASSWORD}@localhost:{self.port}/0"

    @property
    def plain_url(self) -> str:
        """Of the Redis behind it."""
        return self._redis.url

    def set_password(self, password: str) -> None:
        """Of USER, whose connections end."""
        with connect(self._redis.url) as client:
            client.execute_command("ACL", "SETUSER", USER, "reset", "on", f">{password}", "~*", "&*", "+@all")
            client.client_kill_filter(skipme=True)

    def __enter__(self) -> Self:
        self._redis.__enter__()
        self.set_password(PASSWORD)
        threading.Thread(target=self._proxy.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._proxy.shutdown()
        self._proxy.server_close()
        self._redis.__exit__(None, None, None)

    def _pass_on(self, client: socket.socket, *_: object) -> None:
        """One connection, in a thread of its own. A handshake that fails sends its alert, as other servers do."""
        with (
            suppress(OSError),
            self._context.wrap_socket(client, server_side=True) as outer,
            socket.create_connection(("127.0.0.1", self._redis.port)) as inner,
        ):
            while True:
                readable = [outer] if outer.pending() else select.select([outer, inner], [], [])[0]
                for one in readable:
                    piece = one.recv(1 << 16)
                    if not piece:
                        return
                    (inner if one is outer else outer).sendall(piece)


_LISTENERS = {
    "SSL": "SSL",  # asks for a client's certificate
    "SASL_SSL": "SASL_SSL",
    "SASL_PLAINTEXT": "SASL_PLAINTEXT",
    "EXPIRED": "SASL_SSL",
}
_JAAS = "org.apache.kafka.common.security"


class SecuredKafka(ApacheKafka):
    """One with a listener of each kind above the plain one, on the ports after the controller's."""

    ports_needed = 2 + len(_LISTENERS)

    def __init__(self, home: Path, certificates: Certificates) -> None:
        super().__init__(home)
        self._certificates = certificates

    def address(self, listener: str) -> str:
        """Its address for GRAFT_KAFKA."""
        return f"127.0.0.1:{self._port(listener)}"

    def set_password(self, password: str) -> None:
        """Of the SCRAM logins of USER; new connections alone need it."""
        before = used()
        use(Security())
        try:
            with closing(connection.admin(self.servers)) as admin:
                for mechanism in (ScramMechanism.SCRAM_SHA_256, ScramMechanism.SCRAM_SHA_512):
                    made = UserScramCredentialUpsertion(USER, mechanism, password)
                    assert admin.alter_user_scram_credentials([made]) == {USER: None}
        finally:
            use(before)

    def _port(self, listener: str) -> int:
        return self.port + 2 + list(_LISTENERS).index(listener)

    def properties(self) -> dict[str, object]:
        listeners = {"PLAINTEXT": self.port} | {name: self._port(name) for name in _LISTENERS}
        addresses = ",".join(f"{name}://127.0.0.1:{port}" for name, port in listeners.items())
        protocols = {"PLAINTEXT": "PLAINTEXT", "CONTROLLER": "PLAINTEXT", **_LISTENERS}
        files = self._certificates
        settings: dict[str, object] = {
            "listeners": f"{addresses},CONTROLLER://127.0.0.1:{self.port + 1}",
            "advertised.listeners": addresses,
            "listener.security.protocol.map": ",".join(f"{name}:{kind}" for name, kind in protocols.items()),
            "inter.broker.listener.name": "PLAINTEXT",
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": files.server.both,
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": files.ca,
            "listener.name.ssl.ssl.client.auth": "required",
            "listener.name.expired.ssl.keystore.type": "PEM",
            "listener.name.expired.ssl.keystore.location": files.expired.both,
            "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
        }
        for listener in ("sasl_ssl", "sasl_plaintext", "expired"):
            name = f"listener.name.{listener}"
            scram = f"{_JAAS}.scram.ScramLoginModule required;"
            settings[f"{name}.plain.sasl.jaas.config"] = (
                f'{_JAAS}.plain.PlainLoginModule required user_{USER}="{PASSWORD}";'
            )
            settings |= {f"{name}.scram-sha-{bits}.sasl.jaas.config": scram for bits in (256, 512)}
        return super().properties() | settings
