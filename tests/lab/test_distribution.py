"""What the two distributions hold, without building them."""

import tomllib
from pathlib import Path

_ROOT = Path(__file__).parents[2]
_LAB = _ROOT / "lab"
_ROOMS = ("runtime", "features", "stream", "teacher_cache", "student", "graft")


def _files(folder: Path) -> set[Path]:
    found = {path for path in folder.rglob("*") if path.is_file()}
    return {path for path in found if not {"__pycache__", "build"} & set(path.parts) and ".egg-info" not in str(path)}


def test_every_package_and_data_file_of_the_laboratory_is_in_its_wheel() -> None:
    tool = tomllib.loads((_LAB / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]
    packages = {"lab" if path.parent == _LAB else "lab." + ".".join(path.parent.relative_to(_LAB).parts): path.parent
                for path in _files(_LAB) if path.name == "__init__.py"}  # fmt: skip
    assert set(tool["packages"]) == set(packages)
    shipped = {path for folder in packages.values() for path in folder.glob("*.py")}
    for package, patterns in tool["package-data"].items():
        shipped |= {path for pattern in patterns for path in packages[package].glob(pattern) if path.is_file()}
    assert _files(_LAB) - shipped == {_LAB / "pyproject.toml"}


def test_the_program_is_python_alone_and_all_of_it_is_in_its_wheel() -> None:
    files = {path for room in _ROOMS for path in _files(_ROOT / room)}
    assert {path for path in files if path.suffix != ".py"} == set()
    assert {path.parent for path in files} == {path.parent for path in files if path.name == "__init__.py"}
