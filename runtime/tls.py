"""TLS of this process as a client: the files that it needs, and what a failed connection means."""

import socket
import ssl
from pathlib import Path
from typing import NamedTuple

NO_TLS = "it does not speak TLS at this port"

_PROBE_SECONDS = 1.0
_ALERT = b"\x15"  # what a server that expects TLS may send in place of a reply

_NOT_TLS = "WRONG_VERSION_NUMBER"
_FOR_GOOD = ("CERTIFICATE", "UNKNOWN_CA", "HANDSHAKE_FAILURE", "PROTOCOL_VERSION", "UNSUPPORTED_PROTOCOL", "NO_SHARED")
"""What OpenSSL's reasons have in them where the same handshake would fail again; an end of file, for one, is a server
that has just gone."""


class CertificateFiles(NamedTuple):
    """PEM files of a client; each may be missing."""

    ca: Path | None = None
    """Vouches for the server; None: the system's certificates do."""
    certificate: Path | None = None
    """The client's own, for a server that asks for one; with its key."""
    key: Path | None = None

    def context(self) -> ssl.SSLContext:
        """A client's context, which verifies the server's certificate and name.

        OSError (of which ssl.SSLError is one) when a file cannot be read, or holds something else.
        """
        context = ssl.create_default_context(cafile=self.ca)
        if self.certificate is not None:
            context.load_cert_chain(self.certificate, self.key, password=_no_passphrase)
        return context


def refusal(error: BaseException | None) -> str | None:
    """Why the TLS connection that ended with `error` would fail again, in words; None where it may succeed later.

    Looks through the errors that `error` was made of.
    """
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return f"its certificate does not hold: {error.verify_message}"
        if isinstance(error, ssl.SSLError):
            reason = error.reason or ""
            if reason == _NOT_TLS:
                return NO_TLS
            if any(part in reason for part in _FOR_GOOD):
                return f"it refuses the TLS connection or this client's certificate ({reason})"
        inner = next((one for one in error.args if isinstance(one, BaseException)), None)
        error = inner or error.__cause__ or error.__context__
    return None


def refused_by(host: str, port: int, files: CertificateFiles) -> str | None:
    """As `refusal`, of a connection that is made to find out; None where the server lets this client in, or is away.

    A client that writes at once may never read why it was refused: its connection is reset before.
    """
    try:
        with (
            socket.create_connection((host, port), _PROBE_SECONDS) as connection,
            files.context().wrap_socket(connection, server_hostname=host) as tls,
        ):
            tls.recv(1)
    except (OSError, ValueError) as error:  # TimeoutError: the server waits for what this client has to say
        return refusal(error)
    return None


def answers_plainly(host: str, port: int, request: bytes) -> bool:
    """Whether a server answers `request` without TLS; False when it does not within a second."""
    try:
        with socket.create_connection((host, port), _PROBE_SECONDS) as connection:
            connection.sendall(request)
            return connection.recv(1) not in {b"", _ALERT}
    except OSError:
        return False


def speaks_tls(host: str, port: int) -> bool:
    """Whether a server answers a TLS handshake, whatever its certificate; False when it does not within a second."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with (
            socket.create_connection((host, port), _PROBE_SECONDS) as connection,
            context.wrap_socket(connection, server_hostname=host),
        ):
            return True
    except ssl.SSLError as error:
        return "ALERT" in (error.reason or "")
    except (OSError, ValueError):  # ValueError: a host that is no name for TLS
        return False


def _no_passphrase() -> str:
    raise ssl.SSLError(0, "a key with a passphrase cannot be used here")
