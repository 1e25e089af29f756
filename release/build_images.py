"""Builds the images `graft-scorer` and `graft`, prints their sizes, and takes their lists of parts out into dist/.

`make image` runs it: python release/build_images.py VERSION. PYTHON_IMAGE names another base image, PIP_EXTRA_INDEX_URL
an index with torch's CPU build. The size of an image is that of its files on disk, and in brackets what lies over the
base image.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
IMAGES = {"scorer": "graft-scorer", "full": "graft"}
PARTS = "/venv/sbom.cdx.json"


def main(arguments: list[str]) -> int:
    """Build, print and take out; the exit code."""
    (version,) = arguments
    base = os.environ.get("PYTHON_IMAGE") or base_image((ROOT / "Dockerfile").read_text())
    revision = _output("git", "rev-parse", "HEAD").strip()
    settings = {"VERSION": version, "REVISION": revision, "PYTHON_IMAGE": base}
    if index := os.environ.get("PIP_EXTRA_INDEX_URL"):
        settings["PIP_EXTRA_INDEX_URL"] = index
    given = [word for name, value in settings.items() for word in ("--build-arg", f"{name}={value}")]
    (ROOT / "dist").mkdir(exist_ok=True)
    for target, image in IMAGES.items():
        _output("docker", "build", "--target", target, "--tag", image, "--tag", f"{image}:{version}", *given, ".")
        parts = _output("docker", "run", "--rm", "--network", "none", "--entrypoint", "cat", image, PARTS)
        (ROOT / "dist" / f"{image}.cdx.json").write_text(parts)
        whole = _size(image)
        print(f"{image:14}{whole / 1e6:7.0f} MB  ({(whole - _size(base)) / 1e6:.0f} MB over {base})")
    return 0


def base_image(dockerfile: str) -> str:
    """The default of PYTHON_IMAGE."""
    found = re.search(r"^ARG PYTHON_IMAGE=(\S+)$", dockerfile, re.MULTILINE)
    assert found is not None, "the Dockerfile names its base image"
    return found[1]


def _size(image: str) -> int:
    return int(_output("docker", "image", "inspect", "--format", "{{.Size}}", image))


def _output(*argv: str) -> str:
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"error: {' '.join(argv[:2])} failed: {done.stderr.strip()[-2000:]}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
