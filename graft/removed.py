"""Keys, variables and commands that earlier releases had: what to do where a project still has one.

A removal adds its line here; `graft check`, the settings and the command line answer with it.
"""

from collections.abc import Mapping, Sequence

KEYS: Mapping[str, str] = {
    "teacher.torch_export": "export the teacher to ONNX instead: docs/export-a-teacher.md",
}
"""By key of graft.toml, as its faults write it; ``*`` is the number of an entry, or a name that users give."""

VARIABLES: Mapping[str, str] = {}
"""By environment variable."""

COMMANDS: Mapping[str, str] = {}
"""By command as it was typed, such as ``graft look``."""


def removed_key(keys: Sequence[str]) -> str | None:
    """What to do where graft.toml still has this key; None where no release had it."""
    for pattern, advice in KEYS.items():
        parts = pattern.split(".")
        if len(parts) == len(keys) and all(part in ("*", key) for part, key in zip(parts, keys, strict=True)):
            return f"was removed; {advice}"
    return None
