"""Scripts of deploy/, which is no package, as modules."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

_FOLDER = Path(__file__).parents[2] / "deploy"


def module(name: str) -> ModuleType:
    """The script deploy/NAME.py."""
    spec = importlib.util.spec_from_file_location(f"deploy_{name}", _FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = made  # dataclasses look their module up
    spec.loader.exec_module(made)
    return made
