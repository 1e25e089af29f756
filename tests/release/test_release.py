"""The programs of release/: what they refuse, and what they write."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.scripts import script

_ROOT = Path(__file__).parents[2]
_LOCKS = _ROOT / "release/locks"
_FILE = tomllib.loads((_ROOT / "pyproject.toml").read_text("utf-8"))
_PROJECT = _FILE["project"]
_WANTED = {None: _PROJECT["dependencies"]} | _PROJECT["optional-dependencies"] | _FILE["dependency-groups"]


def locked(*names: str) -> dict[str, set[str]]:
    """The libraries of lock files with their versions; one may have several, for several Pythons."""
    found: dict[str, set[str]] = {}
    for name in names:
        for library, version in re.findall(r"^([\w.-]+)(?:\[[\w,-]+\])?==([^\s;]+)", _text(name), re.MULTILINE):
            found.setdefault(canonicalize_name(library), set()).add(version)
    return found


def _text(name: str) -> str:
    return (_LOCKS / f"{name}.txt").read_text("utf-8")


@pytest.mark.parametrize(
    ("extra", "names"),
    [
        (None, ["scorer"]),
        ("otel", ["scorer"]),
        ("full", ["full", "torch-cuda"]),
        ("full", ["full", "torch-cpu"]),
        ("image", ["tools"]),  # a group, not an extra
    ],
)
def test_the_locks_have_every_library_that_pyproject_names_in_a_version_that_it_allows(extra, names):
    found = locked(*names)
    for requirement in map(Requirement, _WANTED[extra]):
        versions = found[canonicalize_name(requirement.name)]
        assert any(requirement.specifier.contains(version) for version in versions), (requirement, versions)


@pytest.mark.parametrize("path", sorted(_LOCKS.glob("*.txt")), ids=lambda path: path.stem)
def test_every_locked_library_has_digests_and_no_address_stands_in_a_lock(path):
    lock, text = script("release/lock"), path.read_text("utf-8")
    blocks = list(lock.blocks_of(text))
    assert blocks
    assert all("--hash=sha256:" in block for block in blocks)
    assert "".join(blocks) == "".join(line for line in text.splitlines(keepends=True) if not line.startswith("#"))
    assert "://" not in text


def test_torch_and_its_cuda_libraries_stand_in_their_own_locks():
    assert locked("torch-cuda")["torch"] == {version.removesuffix("+cpu") for version in locked("torch-cpu")["torch"]}
    assert not {name for name in locked("full") if name == "torch" or name.startswith("nvidia")}
    assert not {"torch", "feast", "kafka-python"} & locked("scorer").keys()


@pytest.fixture
def checkout(tmp_path):
    (tmp_path / "lab").mkdir()
    for name in ("pyproject.toml", "lab/pyproject.toml"):
        (tmp_path / name).write_text('[project]\nversion = "0.1.0"\nrequires-python = ">=3.11"\n')
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n\n## [Unreleased]\n\n### Added\n\n- Plums.\n")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "config", "user.email", "a@example.com")
    git(tmp_path, "config", "user.name", "A")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "-m", "one")
    return tmp_path


def git(folder, *arguments):
    return subprocess.run(["git", "-C", folder, *arguments], check=True, capture_output=True, text=True).stdout


def test_a_release_sets_both_versions_closes_the_changelog_commits_and_tags(checkout):
    assert script("release/release").main(["0.2.0"], checkout) == 0
    assert (checkout / "lab/pyproject.toml").read_text() == (checkout / "pyproject.toml").read_text()
    assert 'version = "0.2.0"' in (checkout / "pyproject.toml").read_text()
    assert re.search(
        r"## \[Unreleased\]\n\n## \[0\.2\.0\] - \d{4}-\d\d-\d\d\n\n### Added\n\n- Plums",
        (checkout / "CHANGELOG.md").read_text(),
    )
    assert git(checkout, "log", "-1", "--format=%s %D").startswith("Release 0.2.0 HEAD -> ")
    assert git(checkout, "tag") == "v0.2.0\n"
    assert git(checkout, "status", "--porcelain") == ""


@pytest.mark.parametrize(
    ("version", "told"),
    [("0.1.0", "above the last one, 0.1.0, got '0.1.0'"), ("v0.2.0", "got 'v0.2.0'"), ("0.2", "got '0.2'")],
)
def test_a_version_that_is_none_or_not_above_the_last_is_refused(checkout, capsys, version, told):
    assert script("release/release").main([version], checkout) == 1
    assert told in capsys.readouterr().err
    assert git(checkout, "tag") == ""


def test_a_dirty_checkout_an_empty_changelog_and_two_versions_are_refused(checkout, capsys):
    release = script("release/release")
    (checkout / "more.py").write_text("")
    assert release.main(["0.2.0"], checkout) == 1
    assert "the checkout has changes: ?? more.py; commit them" in capsys.readouterr().err
    (checkout / "CHANGELOG.md").write_text("## [Unreleased]\n\n## [0.1.0] - 2026-01-01\n\n- Pears.\n")
    assert release.main(["0.2.0"], checkout) == 1
    assert "[Unreleased] has no entry" in capsys.readouterr().err
    (checkout / "lab/pyproject.toml").write_text('version = "0.0.9"\n')
    assert release.main(["0.2.0"], checkout) == 1
    assert "different versions" in capsys.readouterr().err
    assert release.main([], checkout) == 2


def test_this_checkout_could_be_released():
    major = _PROJECT["version"].partition(".")[0]
    assert set(script("release/release").changed(_ROOT, f"{int(major) + 1}.0.0", "2030-01-01")) == {
        "pyproject.toml",
        "lab/pyproject.toml",
        "CHANGELOG.md",
    }


DIGEST = "sha256:" + "ab" * 32
FILES = {
    "Dockerfile": "ARG PYTHON_IMAGE=python:3.11-slim\nFROM ${PYTHON_IMAGE} AS tools\nARG PYTHON_IMAGE\n",
    "docker-compose.yml": "image: ${REDIS_IMAGE:-redis:8}\nimage: ${KAFKA_IMAGE:-localhost:5000/kafka:4.3.1@"
    + DIGEST
    + "}\n",
}


@pytest.fixture
def images(tmp_path, monkeypatch):
    """Two files of images, and a `docker` that knows the digest of what TAGS names."""
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    docker = tmp_path / "bin/docker"
    docker.parent.mkdir()
    docker.write_text(
        '#!/bin/sh\nfor tag; do :; done\ncase " $TAGS " in *" $tag "*) echo \'{"digest": "sha256:'
        + "cd" * 32
        + "\"}';;\n"
        '*) echo "ERROR: dial tcp: no route to host" >&2; exit 1;; esac\n'
    )
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", str(docker.parent), prepend=":")
    return tmp_path


def test_images_are_pinned_in_place_and_again(images, monkeypatch):
    monkeypatch.setenv("TAGS", "python:3.11-slim redis:8 localhost:5000/kafka:4.3.1")
    pinned = "sha256:" + "cd" * 32
    for _ in range(2):
        assert script("release/pin_images").main(images) == 0
        assert (images / "Dockerfile").read_text() == FILES["Dockerfile"].replace("-slim\n", f"-slim@{pinned}\n")
        compose = (images / "docker-compose.yml").read_text()
        assert compose.splitlines() == [
            f"image: ${{REDIS_IMAGE:-redis:8@{pinned}}}",
            f"image: ${{KAFKA_IMAGE:-localhost:5000/kafka:4.3.1@{pinned}}}",
        ]


def test_an_image_whose_registry_does_not_answer_leaves_all_as_it_is(images, monkeypatch, capsys):
    monkeypatch.setenv("TAGS", "python:3.11-slim")
    assert script("release/pin_images").main(images) == 1
    assert "is not pinned, and nothing is written: ERROR: dial tcp: no route to host" in capsys.readouterr().err
    assert {name: (images / name).read_text() for name in FILES} == FILES


def test_every_foreign_image_can_be_pinned():
    pin = script("release/pin_images")
    texts = [(_ROOT / name).read_text("utf-8") for name in pin.FILES]
    named = {found[2] for text in texts for found in pin.REFERENCE.finditer(text)}
    foreign = set(re.findall(r"^\s*image: (?!graft)(\S+)|^FROM ([\w/.-]+:\S+)", "\n".join(texts), re.MULTILINE))
    assert {one for pair in foreign for one in pair if one and not one.startswith("${")} == set()
    assert {name.partition(":")[0] for name in named} == {
        "python", "redis", "apache/kafka", "prom/prometheus", "grafana/grafana",
    }  # fmt: skip


def audited(tmp_path, monkeypatch, report):
    """The audit's program over a folder of its own, whose look-up gives `report`: findings, or a reason for none."""
    audit = script("release/audit")
    (tmp_path / "locks").mkdir(exist_ok=True)
    for name in audit.LOCKS:
        (tmp_path / "locks" / name).write_text("numpy==1.0\n")
    monkeypatch.setattr(audit, "looked_up", lambda _folder: report)
    return audit


FOUND = [{"name": "numpy", "version": "1.0", "id": "PYSEC-1", "fixed": ["1.1"]}]


def test_a_vulnerability_is_told_fails_the_audit_and_is_remembered(tmp_path, monkeypatch, capsys):
    audit = audited(tmp_path, monkeypatch, (FOUND, ""))
    assert audit.main([], tmp_path) == 1
    assert audit.main(["--lenient"], tmp_path) == 0
    assert "numpy 1.0: PYSEC-1, fixed in 1.1" in capsys.readouterr().out
    away = audited(tmp_path, monkeypatch, (None, "no route to host"))
    assert away.main([], tmp_path) == 1
    assert re.search(r"not made anew \(no route to host\); what was known on \d{4}-", capsys.readouterr().out)
    away.ACCEPTED["PYSEC-1"] = "not reached"
    assert away.main([], tmp_path) == 0
    assert "0 known vulnerabilities in the locked libraries, 1 accepted ones" in capsys.readouterr().out


def test_what_was_known_of_other_locks_is_not_told(tmp_path, monkeypatch, capsys):
    assert audited(tmp_path, monkeypatch, (FOUND, "")).main(["--lenient"], tmp_path) == 0
    away = audited(tmp_path, monkeypatch, (None, "no route to host"))
    (tmp_path / "locks/full.txt").write_text("numpy==2.0\n")
    assert away.main([], tmp_path) == 0
    assert "NOT MADE, and none was made of these lock files before: no route to host" in capsys.readouterr().err


def test_a_library_that_the_audit_passes_over_is_not_a_library_without_vulnerabilities():
    read = script("release/audit").read
    numpy = {"name": "numpy", "version": "1.0", "vulns": [{"id": "PYSEC-1", "fix_versions": ["1.1"]}]}
    assert read({"dependencies": [numpy]}) == (FOUND, "")
    skipped = {"name": "torch", "skip_reason": "Dependency not found on PyPI and could not be audited: torch (2.13.0)"}
    assert read({"dependencies": [numpy, skipped]}) == (None, "it knows nothing of 1 of 2 libraries, such as torch")
