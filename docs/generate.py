"""Writes docs/configuration.md from the models of graft.toml and of the environment, docs/grid.md from that of a grid.

docs/keys.toml says in which part of the page each key stands, and when one sets it.

Run: make docs
"""

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from graft.project import Project
from graft.settings import PREFIX, Settings
from lab.study.grid import Grid
from runtime.frozen_model import keys_of

_FOLDER = Path(__file__).parent
_HEAD = """# Configuration

`make docs` generates this page from the models that read the configuration; a test keeps it current. A command that
refuses a value names the key, the value and what is allowed; `graft check` lists all faults at once.

A key without a default must be set where its table stands. Seconds are event time, which the events carry, unless the
effect says wall clock. The page has three parts: [what you will set](#you-will-set), [what you may
set](#you-may-set), and [what you hardly ever will](#you-hardly-ever-will).
"""
_ENVIRONMENT = """They say what differs between machines. `{prefix}NAME_FILE` names a file that holds the value of
`{prefix}NAME`, such as a secret. An empty variable counts as not set; an unknown one is refused.
"""
_GRID = """# The grid of a study

`make docs` generates this page from the models that read a grid, the TOML file of `graft study LOG --grid FILE`; a test
keeps it current. [study.md](study.md) tells what a study does with a grid. The grid that comes with graft is
[headline](../lab/study/grids/headline.toml). A grid for your own project may be as short as this:

```toml
events = 20_000
seeds = 5
baseline = "grafted"
label_delay_seconds = 3_600
thin = [0.1, 0.3]

[[variants]]
name = "grafted"
bootstrap = true

[[variants]]
name = "permuted"
bootstrap = true
teacher = { permuted = true }
```

A key without a default must be set. Beside its variants every study has the plain models: `lr`, `lr_teacher`,
`bayes_bias` and `online_lr`.
"""
_TYPES: dict[Any, str] = {
    Any: "value",
    bool: "true or false",
    int: "integer",
    float: "number",
    str: "text",
    datetime: "time",
    Path: "path",
    SecretStr: "text, secret",
}
_UNITS = {
    "seconds": "s",
    "ms": "ms",
    "days": "days",
    "examples": "examples",
    "rows": "rows",
    "batches": "micro-batches",
    "batch": "examples",
    "capacity": "examples",
    "steps": "steps",
}
"""The unit of a key by the last word of its name."""
_COLUMNS = ("key", "type", "unit", "default", "allowed", "effect", "set it when")
_WHEN: dict[str, dict[str, str]] = tomllib.loads((_FOLDER / "keys.toml").read_text("utf-8"))
"""By part of the page: each key with its table, and when one sets it."""


class Section(NamedTuple):
    """One table of graft.toml: its header as it stands in the file, and the model that reads it."""

    header: str
    model: type[BaseModel]

    @property
    def path(self) -> str:
        """Its tables with a dot after each, such as `features.context.`; empty at the top level."""
        inner = re.search(r"\[+([\w.]+)\]", self.header)
        return f"{inner[1].removesuffix('.NAME')}." if inner else ""


def configuration() -> str:
    """The whole page, in three parts; a key that none of them has is a KeyError."""
    if unplaced := keys() ^ {key for whens in _WHEN.values() for key in whens}:
        raise KeyError(f"docs/keys.toml: keys that only it has, or that it lacks: {sorted(unplaced)}")
    parts, described = [_HEAD], set[type[BaseModel]]()
    variables = _variables()
    for part, whens in _WHEN.items():
        parts.append(f"## {part.replace('_', ' ').capitalize()}")
        for section in sections():
            if table := _table(section, whens):
                prose = "" if section.model in described else _prose(section.model)
                parts += [f"### {section.header}", prose, table]
                described.add(section.model)
        first = part == next(iter(_WHEN))
        parts += ["### Environment variables", _ENVIRONMENT.format(prefix=PREFIX) if first else ""]
        parts.append(_rows({name: field for name, field in variables.items() if name in whens}, whens))
    return "\n\n".join(part.strip() for part in parts if part) + "\n"


def keys() -> set[str]:
    """Each key of graft.toml with its tables before it, and each environment variable."""
    return {f"{section.path}{name}" for section in sections() for name in _held(section.model)} | set(_variables())


def _variables() -> dict[str, FieldInfo]:
    return {f"{PREFIX}{name.upper()}": field for name, field in Settings.model_fields.items()}


def grid() -> str:
    """The whole page of a grid's keys."""
    parts = [_GRID]
    for section in sections(Grid):
        parts += [f"## {section.header}", _prose(section.model), _table(section)]
    return "\n\n".join(part.strip() for part in parts if part) + "\n"


def sections(model: type[BaseModel] = Project) -> Iterator[Section]:
    """Every table of graft.toml, or of another file, in the order of the models, the top level first."""
    yield Section("Top level", model)
    yield from _sections(model, "")


def _sections(model: type[BaseModel], path: str) -> Iterator[Section]:
    for name, field in keys_of(model).items():
        yield from _below(field.annotation, f"{path}{name}")


def _below(annotation: Any, path: str) -> Iterator[Section]:
    """The tables that a key of this type opens; none where it is a plain value."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is list:
        inner, header, below = arguments[0], f"`[[{path}]]`", path
    elif origin is dict:
        inner, header, below = arguments[1], f"`[{path}.NAME]`", f"{path}.NAME"
    else:
        inner, header, below = annotation, f"`[{path}]`", path
    for model in _models(inner):
        yield Section(f'{header} with kind = "{tag}"' if (tag := _tag(model)) else header, model)
        yield from _sections(model, f"{below}.")


def _tag(model: type[BaseModel]) -> str | None:
    """The `kind` by which the file chooses this model among the ones that may stand there; None where there is one."""
    kind = model.model_fields.get("kind")
    return None if kind is None or kind.is_required() else str(kind.default)


def _models(annotation: Any) -> list[type[BaseModel]]:
    return [a for a in _alternatives(annotation) if isinstance(a, type) and issubclass(a, BaseModel)]


def _alternatives(annotation: Any) -> list[Any]:
    """The branches of a union, None left out; else the type itself."""
    if get_origin(annotation) is Annotated:
        return _alternatives(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return [branch for a in get_args(annotation) if a is not NoneType for branch in _alternatives(a)]
    return [annotation]


def _prose(model: type[BaseModel]) -> str:
    lines = (model.__doc__ or "").strip().splitlines()
    return "\n".join(line.strip() for line in lines).replace("``", "`")


def _held(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """The keys that hold a value; those that open a table of their own have a section."""
    held = {name: field for name, field in keys_of(model).items() if not list(_below(field.annotation, name))}
    if _tag(model):
        del held["kind"]
    return held


def _table(section: Section, whens: Mapping[str, str] | None = None) -> str:
    """The keys of a table; with `whens` only those that it has, each with when one sets it."""
    held = _held(section.model)
    if whens is None:
        return _rows(held)
    placed = {name: f"{section.path}{name}" for name in held if f"{section.path}{name}" in whens}
    return _rows({name: held[name] for name in placed}, {name: whens[place] for name, place in placed.items()})


def _rows(fields: Mapping[str, FieldInfo], whens: Mapping[str, str] | None = None) -> str:
    if not fields:
        return ""
    columns = _COLUMNS if whens else _COLUMNS[:-1]
    rows = [_row(name, field) + ([whens[name]] if whens else []) for name, field in fields.items()]
    return "\n".join(_line(cells) for cells in (columns, ["---"] * len(columns), *rows))


def _row(name: str, field: FieldInfo) -> list[str]:
    unit = _UNITS.get(name.rpartition("_")[2].lower(), "")
    return [f"`{name}`", _type(field.annotation), unit, _default(field), _allowed(field), field.description or ""]


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _type(annotation: Any) -> str:
    return " or ".join(dict.fromkeys(_plain_type(branch) for branch in _alternatives(annotation)))


def _plain_type(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return "text"
    if origin in (list, tuple):
        return f"list of {_type(arguments[0])}"
    if origin is dict:
        return f"table of {_type(arguments[1])}"
    return _TYPES.get(annotation, str(annotation))


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return ""
    default = field.get_default(call_default_factory=True)
    if isinstance(default, SecretStr):
        default = default.get_secret_value()
    if default is None:
        return "none"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    if isinstance(default, str | Path):
        return f'`"{default}"`'
    return f"`{default}`"


def _allowed(field: FieldInfo) -> str:
    """What a value must be: the field's own words (json_schema_extra: allowed), its values, or its limits."""
    if isinstance(field.json_schema_extra, dict) and "allowed" in field.json_schema_extra:
        return str(field.json_schema_extra["allowed"])
    values = [value for branch in _alternatives(field.annotation) for value in _literals(branch)]
    if values:
        return ", ".join(f"`{value}`" for value in values)
    return ", ".join(_limits(field.metadata))


def _literals(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if get_origin(annotation) is Literal else ()


def _limits(metadata: Sequence[Any]) -> Iterator[str]:
    """The bounds, lengths and patterns of a value, in the order in which they are declared."""
    for limit in metadata:
        for name, text in (("gt", "> {}"), ("ge", ">= {}"), ("lt", "< {}"), ("le", "<= {}")):
            if (bound := getattr(limit, name, None)) is not None:
                yield text.format(bound)
        if (least := getattr(limit, "min_length", None)) is not None:
            yield f"at least {least}"
        if (most := getattr(limit, "max_length", None)) is not None:
            yield f"at most {most}"
        if (pattern := getattr(limit, "pattern", None)) is not None:
            yield f"`{pattern}`"


if __name__ == "__main__":
    for name, page in (("configuration.md", configuration()), ("grid.md", grid())):
        (_FOLDER / name).write_text(page, "utf-8")
