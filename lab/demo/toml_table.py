"""Sets values in one table of a TOML file and leaves the rest as it is."""

import json
import re
import tomllib
from collections.abc import Mapping

Scalar = str | int | float | bool


def with_values(text: str, table: str, values: Mapping[str, Scalar]) -> str:
    """`text` with `values` in its top-level `[table]`, which moves to the end; its other keys must be scalars too."""
    merged = {**tomllib.loads(text).get(table, {}), **values}
    section = re.compile(rf"^\[{re.escape(table)}\][^\n]*\n(?:(?!\[)[^\n]*\n?)*", re.MULTILINE)
    lines = "".join(f"{key} = {json.dumps(value)}\n" for key, value in merged.items())
    return f"{section.sub('', text).rstrip()}\n\n[{table}]\n{lines}"
