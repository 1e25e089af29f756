"""The wheels of both distributions, installed in a folder of their own and used in an empty one."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

_ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the wheels hold, made of the files that git knows, and no library beside."""
    folder = tmp_path_factory.mktemp("wheels")
    names = subprocess.run(["git", "ls-files", "-z"], cwd=_ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, names.split("\0")):
        if (_ROOT / name).is_file():
            (folder / "checkout" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(_ROOT / name, folder / "checkout" / name)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    for project in (folder / "checkout", folder / "checkout/lab"):
        wheel = ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder / "dist"), str(project)]
        subprocess.run([*pip, *wheel], check=True)
    wheels = sorted(map(str, (folder / "dist").glob("*.whl")))
    assert len(wheels) == 2
    subprocess.run([*pip, "install", "--no-deps", "--target", str(folder / "site"), *wheels], check=True)
    shutil.rmtree(folder / "checkout")
    return folder / "site"


def run(installed: Path, folder: Path, *argv: str) -> str:
    """Standard output of Python in `folder`, with the wheels before this checkout."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GRAFT_")}
    environment["PYTHONPATH"] = str(installed)
    argv = (sys.executable, *argv)
    done = subprocess.run(argv, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheels_hold_a_program_that_makes_and_checks_a_project_in_an_empty_folder(
    installed: Path, tmp_path: Path
) -> None:
    where = run(
        installed, tmp_path, "-c", "import graft, lab, runtime; print(graft, lab, runtime, sep='\\n')"
    ).splitlines()
    assert [str(installed) in module for module in where] == [True] * 3
    graft = str(installed / "bin/graft")
    assert run(installed, tmp_path, graft, "--version").startswith("graft, version ")
    run(installed, tmp_path, graft, "pair", "make", "simulated", "shop")
    told = run(installed, tmp_path, graft, "--project", "shop", "replay", "--dry-run", "shop/events.jsonl")
    assert "impressions" in told
    assert {path.name for path in tmp_path.iterdir()} == {"shop"}
    assert (tmp_path / "shop/feature_repo/definitions.py").exists()
