"""Looks up the locked libraries among the known vulnerabilities; without a network, what the last look-up has found.

    python release/audit.py           tells; 1 where a library has a vulnerability that ACCEPTED does not name
    python release/audit.py --lenient tells, and fails for none: a vulnerability made public today fails no old commit

The advisories are those that PyPI passes on (pip-audit). Each look-up is kept in audit.json with its day and the digest
of the lock files. Where the service does not answer, that file speaks, if the locks are still those it is of.
"""

import hashlib
import json
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent
LOCKS = ("tools.txt", "scorer.txt", "full.txt", "torch-cuda.txt")
ACCEPTED: dict[str, str] = {}
"""Id of an advisory -> why the library stays."""
_SECONDS = 180


def main(arguments: list[str], folder: Path = FOLDER) -> int:
    """Look up and tell; the exit code."""
    kept = folder / "audit.json"
    digest = digest_of(folder)
    findings, reason = looked_up(folder)
    if findings is None:
        last: dict[str, Any] = json.loads(kept.read_text()) if kept.exists() else {}
        if last.get("locks") != digest:
            print(f"audit: NOT MADE, and none was made of these lock files before: {reason}", file=sys.stderr)
            return 0
        findings = last["vulnerabilities"]
        print(f"audit: not made anew ({reason}); what was known on {last['day']}:")
    else:
        day = datetime.now(UTC).date().isoformat()
        kept.write_text(json.dumps({"day": day, "locks": digest, "vulnerabilities": findings}, indent=1) + "\n")
    new = [finding for finding in findings if finding["id"] not in ACCEPTED]
    for finding in new:
        fixed = ", ".join(finding["fixed"]) or "no version"
        print(f"audit: {finding['name']} {finding['version']}: {finding['id']}, fixed in {fixed}")
    print(f"audit: {len(new)} known vulnerabilities in the locked libraries, {len(findings) - len(new)} accepted ones")
    return 1 if new and "--lenient" not in arguments else 0


def digest_of(folder: Path) -> str:
    """Of all lock files."""
    return hashlib.sha256(b"".join((folder / "locks" / name).read_bytes() for name in LOCKS)).hexdigest()


def looked_up(folder: Path) -> tuple[list[dict[str, Any]] | None, str]:
    """The vulnerabilities of the locked libraries; or None and why they could not be looked up."""
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch) / "audit.json"
        argv = [sys.executable, "-m", "pip_audit", "--disable-pip", "--require-hashes", "--no-deps", "--format", "json"]
        argv += ["--progress-spinner", "off", "--output", str(report)]
        argv += [word for name in LOCKS for word in ("--requirement", str(folder / "locks" / name))]
        try:
            done = subprocess.run(argv, capture_output=True, text=True, timeout=_SECONDS, check=False)
        except subprocess.TimeoutExpired:
            return None, f"no answer within {_SECONDS} s"
        if not report.exists():
            return None, done.stderr.strip().rpartition("\n")[2] or f"exit code {done.returncode}"
        return read(json.loads(report.read_text()))


def read(report: dict[str, Any]) -> tuple[list[dict[str, Any]] | None, str]:
    """What pip-audit's report says; nothing where it has passed over a library, which it counts as no finding."""
    libraries = report["dependencies"]
    passed_over = [library["name"] for library in libraries if "skip_reason" in library]
    if passed_over:
        return None, f"it knows nothing of {len(passed_over)} of {len(libraries)} libraries, such as {passed_over[0]}"
    return [_finding(library, advisory) for library in libraries for advisory in library["vulns"]], ""


def _finding(library: dict[str, Any], advisory: dict[str, Any]) -> dict[str, Any]:
    names = {"name": library["name"], "version": library["version"]}
    return names | {"id": advisory["id"], "fixed": advisory["fix_versions"]}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
