"""Pins the foreign images of Dockerfile and docker-compose.yml by the digest that their registry gives.

`make pin` runs it: python release/pin_images.py. It needs Docker with buildx and a way to the registries; where one
does not answer it says so and writes nothing. A pinned reference still names its tag, as in redis:8@sha256:..., and the
next `make pin` asks for that tag again.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FILES = ("Dockerfile", "docker-compose.yml")
# The default of a variable ending in _IMAGE: ARG PYTHON_IMAGE=python:3.11-slim, ${REDIS_IMAGE:-redis:8}
REFERENCE = re.compile(r"(_IMAGE(?:=|:-))([\w./-]+(?::\d+/[\w./-]+)?:[\w.-]+)(?:@sha256:[0-9a-f]{64})?")


def main(root: Path = ROOT) -> int:
    """Pin every image, or none; the exit code."""
    texts = {root / name: (root / name).read_text() for name in FILES}
    tags = sorted({found[2] for text in texts.values() for found in REFERENCE.finditer(text)})
    digests: dict[str, str] = {}
    for tag in tags:
        digest, reason = digest_of(tag)
        if digest is None:
            print(f"error: {tag} is not pinned, and nothing is written: {reason}", file=sys.stderr)
            return 1
        digests[tag] = digest
        print(f"{tag}@{digest}")
    for path, text in texts.items():
        path.write_text(REFERENCE.sub(lambda found: f"{found[1]}{found[2]}@{digests[found[2]]}", text))
    return 0


def digest_of(tag: str) -> tuple[str | None, str]:
    """The digest of the tag's manifest list, of all platforms; or None and why there is none."""
    argv = ["docker", "buildx", "imagetools", "inspect", "--format", "{{json .Manifest}}", tag]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return None, f"docker buildx did not answer: {error}"
    if done.returncode != 0:
        return None, done.stderr.strip().rpartition("\n")[2]
    digest = json.loads(done.stdout).get("digest", "")
    return (digest, "") if re.fullmatch(r"sha256:[0-9a-f]{64}", digest) else (None, f"no digest in {done.stdout[:200]}")


if __name__ == "__main__":
    sys.exit(main())
