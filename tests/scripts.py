"""Scripts outside the packages, such as those of deploy/, docs/ and release/, as modules."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

_ROOT = Path(__file__).parents[1]


def script(name: str) -> ModuleType:
    """The script NAME.py, such as docs/messages, loaded anew."""
    spec = importlib.util.spec_from_file_location(name.replace("/", "_"), _ROOT / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = made  # dataclasses look their module up
    spec.loader.exec_module(made)
    return made
