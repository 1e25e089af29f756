"""Makes a release of this checkout: sets the version, closes the changelog's [Unreleased], commits and tags.

`make release VERSION=1.2.0` runs it: python release/release.py 1.2.0. It refuses a checkout with changes, a version
that is not above the last one, and an empty [Unreleased]. Nothing is pushed or published.
"""

import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PROJECTS = ("pyproject.toml", "lab/pyproject.toml")
_VERSION = re.compile(r'^version = "(.+)"$', re.MULTILINE)
_UNRELEASED = "## [Unreleased]\n"


class RefusedError(Exception):
    """The release cannot be made; the text says why and what to do."""


def main(arguments: list[str], root: Path = ROOT) -> int:
    """Make the release, or say why not; the exit code."""
    try:
        (version,) = arguments
    except ValueError:
        print("usage: make release VERSION=1.2.0", file=sys.stderr)
        return 2
    try:
        changes = changed(root, version, datetime.now(UTC).date().isoformat())
        _refuse_dirty(root)
    except RefusedError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for name, text in changes.items():
        (root / name).write_text(text)
    _git(root, "commit", "--quiet", "--message", f"Release {version}", "--", *changes)
    _git(root, "tag", "--annotate", "--message", f"graft {version}", f"v{version}")
    print(
        f"v{version} is committed and tagged; 'git push --follow-tags' makes it public, 'make wheels' builds its files"
    )
    return 0


def changed(root: Path, version: str, day: str) -> dict[str, str]:
    """The files that a release changes, with their new text; RefusedError where it cannot be made."""
    texts = {name: (root / name).read_text() for name in PROJECTS}
    before = {name: _version_in(name, text) for name, text in texts.items()}
    if len(set(before.values())) > 1:
        raise RefusedError(f"the distributions have different versions: {before}; set both to the last release's")
    last = before[PROJECTS[0]]
    if not _is_above(version, last):
        raise RefusedError(f"VERSION must be MAJOR.MINOR.PATCH and above the last one, {last}, got {version!r}")
    texts = {name: _VERSION.sub(f'version = "{version}"', text, count=1) for name, text in texts.items()}
    return texts | {"CHANGELOG.md": closed((root / "CHANGELOG.md").read_text(), version, day)}


def closed(changelog: str, version: str, day: str) -> str:
    """The changelog with what was unreleased under this version, and an empty [Unreleased] above it."""
    head, found, rest = changelog.partition(_UNRELEASED)
    entries = re.split(r"^## \[", rest, maxsplit=1, flags=re.MULTILINE)[0]
    if not found or not re.search(r"^- ", entries, re.MULTILINE):
        raise RefusedError("CHANGELOG.md: [Unreleased] has no entry; write what changes for people who run graft")
    return f"{head}{_UNRELEASED}\n## [{version}] - {day}\n{rest}"


def _version_in(name: str, text: str) -> str:
    found = _VERSION.search(text)
    if found is None:
        raise RefusedError(f'{name}: there must be a line version = "..."')
    return found[1]


def _is_above(version: str, last: str) -> bool:
    if not re.fullmatch(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)", version):
        return False
    return tuple(map(int, version.split("."))) > tuple(map(int, last.split(".")))


def _refuse_dirty(root: Path) -> None:
    if dirty := _git(root, "status", "--porcelain").splitlines():
        raise RefusedError(f"the checkout has changes: {', '.join(dirty[:5])}; commit them or put them aside")


def _git(root: Path, *arguments: str) -> str:
    argv = ["git", "-C", str(root), *arguments]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"error: git {arguments[0]} failed: {done.stderr.strip()}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
