"""deploy/certificates.py: what it makes holds, stays, and is no secret of another process."""

import re
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from tests.scripts import script

_ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")


@pytest.fixture(scope="module")
def certificates() -> ModuleType:
    return script("deploy/certificates")


def contents(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_both_servers_are_known_by_the_authority_and_by_their_names(certificates: ModuleType, tmp_path: Path) -> None:
    certificates.make(tmp_path)
    for user in ("stream", "scorer", "setup", "redis"):
        assert ssl.create_default_context(cafile=tmp_path / user / "ca.pem").get_ca_certs()
    for name, file in (("kafka", tmp_path / "kafka/server.pem"), ("redis", tmp_path / "redis/server.crt")):
        known = [
            "openssl",
            "verify",
            "-x509_strict",
            "-CAfile",
            str(tmp_path / "stream/ca.pem"),
            "-verify_hostname",
            name,
        ]
        done = subprocess.run([*known, str(file)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "kafka/server.pem")
    context.load_cert_chain(tmp_path / "redis/server.crt", tmp_path / "redis/server.key")


def test_what_is_there_stays_and_what_is_removed_is_made_anew(certificates: ModuleType, tmp_path: Path) -> None:
    certificates.make(tmp_path)
    first = contents(tmp_path)
    certificates.make(tmp_path)
    assert contents(tmp_path) == first

    (tmp_path / "stream/kafka_password").unlink()
    certificates.make(tmp_path)
    second = contents(tmp_path)
    changed = {name for name, text in second.items() if text != first[name]}
    assert changed == {"stream/kafka_password", "kafka/jaas.conf"}


def test_a_certificate_in_its_last_month_is_renewed_and_a_new_authority_signs_all(
    certificates: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(certificates, "_DAYS", 20)
    certificates.make(tmp_path)
    short = contents(tmp_path)
    monkeypatch.undo()
    certificates.make(tmp_path)
    renewed = contents(tmp_path)
    assert renewed["kafka/server.pem"] != short["kafka/server.pem"]
    assert renewed["stream/ca.pem"] == short["stream/ca.pem"]

    (tmp_path / "authority/ca.key").unlink()
    certificates.make(tmp_path)
    assert contents(tmp_path)["redis/server.crt"] != renewed["redis/server.crt"]


def test_each_process_has_a_password_of_its_own_which_kafka_knows(certificates: ModuleType, tmp_path: Path) -> None:
    certificates.make(tmp_path)
    known = dict(re.findall(r'user_(\w+)="(\w+)"', (tmp_path / "kafka/jaas.conf").read_text()))
    assert known == {user: (tmp_path / user / "kafka_password").read_text() for user in certificates.USERS}
    assert len(set(known.values())) == len(certificates.USERS)
    assert not (tmp_path / "scorer/kafka_password").exists()


def secured() -> Iterator[tuple[str, dict[str, str]]]:
    """The processes of docker-compose.secure.yml that have an environment of ours."""
    services = yaml.safe_load((_ROOT / "docker-compose.secure.yml").read_text())["services"]
    for name, service in services.items():
        if any(key.startswith("GRAFT_") for key in service.get("environment", {})):
            yield name, service["environment"]


def test_every_process_that_speaks_to_kafka_or_redis_is_secured(certificates: ModuleType) -> None:
    base = yaml.safe_load((_ROOT / "docker-compose.yml").read_text())["services"]
    found = dict(secured())
    for name, service in base.items():
        environment = service.get("environment", {})
        if "GRAFT_KAFKA" in environment:
            user = "operator" if name == "graft" else name
            assert found[name]["GRAFT_KAFKA_SECURITY_PROTOCOL"] == "SASL_SSL", name
            assert found[name]["GRAFT_KAFKA_SASL_USERNAME"] == user
            assert user in certificates.USERS
        if "GRAFT_REDIS_URL_FILE" in environment:
            assert found[name]["GRAFT_REDIS_URL_FILE"] == "/run/secrets/rediss_url", name
            assert found[name]["GRAFT_REDIS_SSL_CA_CERTS"] == "/run/secrets/ca.pem"
