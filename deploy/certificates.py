"""Makes the certificates of Kafka and Redis, and Kafka's users, one for each process; run once, before they start.

    FOLDER/authority/           the authority's certificate and key, which no other container sees
    FOLDER/kafka/server.pem     Kafka's certificate with its key
    FOLDER/kafka/jaas.conf      Kafka's users with their passwords
    FOLDER/redis/server.crt     Redis' certificate; server.key its key; ca.pem the authority's
    FOLDER/USER/kafka_password  for that user's process alone; ca.pem, by which it knows Kafka and Redis

What is there stays; a file that is removed is made anew, and so is a certificate in its last month. Kafka and Redis
read theirs when they start. Needs the program `openssl`.
"""

import secrets
import subprocess
import sys
from pathlib import Path

USERS = ("stream", "teacher", "learner", "archive", "replay", "operator")
"""Who speaks to Kafka."""
_TLS_ALONE = ("setup", "scorer")
"""Who speaks to Redis and not to Kafka."""
_NAMES = "DNS:{0},DNS:localhost,IP:127.0.0.1"
_DAYS, _AUTHORITY_DAYS = 397, 3650
_RENEWED_SECONDS = 30 * 86_400
_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc")


def make(folder: Path) -> None:
    """Write all files; `folder` is made where it is missing."""
    authority = _authority(folder / "authority")
    certificate, key = _server("kafka", folder / "authority", authority)
    _write(folder / "kafka" / "server.pem", key + certificate)
    certificate, key = _server("redis", folder / "authority", authority)
    _write(folder / "redis" / "server.crt", certificate)
    _write(folder / "redis" / "server.key", key)
    passwords = {user: _kept(folder / user / "kafka_password") for user in USERS}
    _write(folder / "kafka" / "jaas.conf", jaas(passwords))
    for user in ("redis", *USERS, *_TLS_ALONE):
        _write(folder / user / "ca.pem", (authority / "ca.pem").read_text("ascii"))


def jaas(passwords: dict[str, str]) -> str:
    """Kafka's file of logins for the listeners INSIDE and HOST."""
    users = "".join(f'\n  user_{user}="{password}"' for user, password in passwords.items())
    login = f"org.apache.kafka.common.security.plain.PlainLoginModule required{users};"
    return "".join(f"{listener}.KafkaServer {{\n  {login}\n}};\n" for listener in ("inside", "host"))


def _authority(folder: Path) -> Path:
    certificate, key = folder / "ca.pem", folder / "ca.key"
    if not (_lasts(certificate) and key.exists()):
        folder.mkdir(parents=True, exist_ok=True)
        _openssl(
            *("req", "-x509", *_KEY, "-keyout", key, "-out", certificate, "-days", _AUTHORITY_DAYS),
            *("-subj", "/CN=graft's own authority", "-addext", "keyUsage=critical,keyCertSign,cRLSign"),
        )
        for made in folder.glob("*.crt"):  # signed by another one
            made.unlink()
    return folder


def _server(name: str, folder: Path, authority: Path) -> tuple[str, str]:
    """The certificate and the key of a server of that name."""
    certificate, key = folder / f"{name}.crt", folder / f"{name}.key"
    if not (_lasts(certificate) and key.exists()):
        _openssl(
            *("req", "-x509", *_KEY, "-keyout", key, "-out", certificate, "-days", _DAYS, "-subj", f"/CN={name}"),
            *("-CA", authority / "ca.pem", "-CAkey", authority / "ca.key"),
            *("-addext", f"subjectAltName={_NAMES.format(name)}", "-addext", "basicConstraints=critical,CA:false"),
        )
    return certificate.read_text("ascii"), key.read_text("ascii")


def _lasts(certificate: Path) -> bool:
    return certificate.exists() and _openssl(
        "x509", "-in", certificate, "-noout", "-checkend", _RENEWED_SECONDS, required=False
    )


def _openssl(*arguments: object, required: bool = True) -> bool:
    done = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True, check=False)  # noqa: S603, S607
    if required and done.returncode:
        raise SystemExit(f"error: openssl {arguments[0]} ended with {done.returncode}: {done.stderr.strip()}")
    return done.returncode == 0


def _kept(path: Path) -> str:
    """What the file holds; a new password where it is missing."""
    if not path.exists():
        _write(path, secrets.token_hex(32))
    return path.read_text("ascii").strip()


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}")
    partial.write_text(text, "ascii")
    partial.replace(path)


if __name__ == "__main__":
    make(Path(sys.argv[1]))
