"""Writes the lock files in locks/: every library of the images with its version and the digests of its files.

    locks/tools.txt       what builds the wheel and the list of parts (CycloneDX)
    locks/scorer.txt      of the image `scorer`
    locks/full.txt        of the image `full`, but for torch and what torch alone brings
    locks/torch-cuda.txt  torch as PyPI has it, with its CUDA libraries
    locks/torch-cpu.txt   the same version of torch's CPU build, which an index of its own has

`make lock` runs it: python release/lock.py [VERSION-OF-TORCH]. It asks PyPI, and for the CPU build also the index in
PIP_EXTRA_INDEX_URL or the folder in PIP_FIND_LINKS; without either locks/torch-cpu.txt stays as it is where its version
still fits. `make lock TORCH=2.13.0` takes that version of torch, as where the CPU build of the newest is not there yet.
"""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCKS = ROOT / "release" / "locks"
SCORER, FULL = ("pyproject.toml", "--extra=scorer", "--extra=otel"), ("pyproject.toml", "--extra=full", "--extra=otel")
_PYTHON = "3.11"  # the oldest that graft takes, and that of the images; markers say what newer ones need
_OF_TORCH = re.compile(r"(torch|triton|nvidia-[\w.-]+|cuda-[\w.-]+)==")
_HEAD = "# Written by `make lock`; do not edit.\n"


def main(arguments: Sequence[str]) -> int:
    """Write all lock files, or none; the exit code."""
    torch = arguments[0] if arguments else None
    full = compiled(FULL, f"torch=={torch}\n" if torch else "")
    blocks = blocks_of(full)
    written = {"tools.txt": compiled(["--group=image"]), "scorer.txt": compiled(SCORER, full)}
    written["full.txt"] = "".join(block for block in blocks if not _OF_TORCH.match(block))
    written["torch-cuda.txt"] = "".join(block for block in blocks if _OF_TORCH.match(block))
    version = re.search(r"^torch==([\w.]+)", written["torch-cuda.txt"], re.MULTILINE)
    assert version is not None, "full needs torch"
    written["torch-cpu.txt"] = cpu_build(version[1], LOCKS / "torch-cpu.txt")
    LOCKS.mkdir(exist_ok=True)
    for name, text in written.items():
        (LOCKS / name).write_text(text if text.startswith(_HEAD) else _HEAD + text)
        print(f"locks/{name}: {len(blocks_of(text))} libraries")
    return 0


def compiled(wanted: Iterable[str], constraints: str = "") -> str:
    """The newest libraries that pyproject.toml and these constraints allow, with the digests of all their files."""
    argv = [sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--universal", *wanted, "--upgrade"]
    argv += ["--python-version", _PYTHON, "--generate-hashes", "--no-header", "--no-annotate", "--no-emit-index-url"]
    argv += ["--no-emit-find-links"]
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write(constraints)
        file.flush()
        return _output([*argv, "--constraint", file.name])


def blocks_of(text: str) -> list[str]:
    """The requirements of a lock file, each with its digests."""
    return re.findall(r"^[a-z0-9].*?(?:\\\n.*?)*\n", text, re.MULTILINE)


def cpu_build(version: str, before: Path) -> str:
    """Torch's CPU build of this version with the digests of its files, or what was locked of it before."""
    wanted = f"torch=={version}+cpu"
    with tempfile.TemporaryDirectory() as folder:
        argv = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, wanted]
        found = subprocess.run(argv, capture_output=True, text=True, check=False)
        files = sorted(Path(folder).iterdir())
        if found.returncode == 0 and files:
            return f"{wanted} \\\n" + _digests(files)
    if before.exists() and f"{wanted} " in (text := before.read_text()):
        print(f"locks/{before.name}: stays as it is, since no index here has {wanted}", file=sys.stderr)
        return text
    raise SystemExit(
        f"error: no index here has {wanted}, and {before} is of another version: name an index of torch's CPU builds "
        "in PIP_EXTRA_INDEX_URL, or a folder with its wheel in PIP_FIND_LINKS, or another version: make lock TORCH=..."
    )


def _digests(files: Sequence[Path]) -> str:
    argv = [sys.executable, "-m", "pip", "hash", *map(str, files)]
    found = re.findall(r"--hash=sha256:[0-9a-f]{64}", _output(argv))
    return " \\\n".join(f"    {digest}" for digest in found) + "\n"


def _output(argv: Sequence[str]) -> str:
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, env=_environment(), check=False)
    if done.returncode != 0:
        raise SystemExit(f"error: {' '.join(argv[1:4])} failed: {done.stderr.strip()}")
    return done.stdout


def _environment() -> dict[str, str]:
    """Without what names another index or folder: a lock file is made of PyPI's files."""
    return {name: value for name, value in os.environ.items() if name not in {"UV_FIND_LINKS", "UV_EXTRA_INDEX_URL"}}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
