"""A graft.toml in which every key stands with its meaning, which comes from the models that read it."""

import json
import re
import textwrap
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from graft.init.names import identifier
from graft.init.teacher_match import Match, Matched
from runtime.frozen_model import keys_of, opens_a_table
from student.learn.config import DistillationConfig
from teacher_cache.config import DumpConfig, ServerConfig, TeacherConfig

GUESSED = "# guessed:"
_WIDTH = 110


class Raw(str):
    """A value that is TOML already."""

    __slots__ = ()


def toml_value(value: Any) -> str:
    """A value as TOML writes it on one line."""
    if isinstance(value, Raw):
        return str(value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | Path):
        return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key_text(k)} = {toml_value(v)}" for k, v in value.items()) + " }"
    if isinstance(value, Sequence):
        return "[" + ", ".join(toml_value(item) for item in value) + "]"
    return repr(value)


def key_text(key: str) -> str:
    """A key, quoted where TOML wants it."""
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else toml_value(key)


def table_lines(
    header: str,
    model: type[BaseModel],
    values: Mapping[str, Any],
    guesses: Mapping[str, str],
    *,
    brief: bool = False,
    without: Collection[str] = (),
) -> Iterator[str]:
    """One table: its header, then each key of `model` that holds a value.

    A key in `values` has that value, and behind it why it was guessed; any other stands commented out with its default.
    `without`: keys that are left out. `brief`: no meanings and no defaults, as in the second table of its kind.
    """
    if header:
        yield header
    for name, field in keys_of(model).items():
        if name in without or (opens_a_table(field.annotation) and name not in values):
            continue
        if not brief and field.description:
            yield from prose(field.description)
        if name in values:
            yield from _pair(name, values[name], guesses.get(name))
        elif not brief and not field.is_required():
            default = field.get_default(call_default_factory=True)
            yield f"# {name} = {'...' if default in (None, PydanticUndefined) else toml_value(default)}"


def commented(header: str, model: type[BaseModel]) -> Iterator[str]:
    """A table that is left out: its header and the meaning of each of its keys, as comment lines."""
    yield f"# {header}"
    for name, field in keys_of(model).items():
        yield from prose(f"{name}: {field.description}")


def lines_of(lines: Iterable[str]) -> str:
    """The lines as one text, without a line break at its end."""
    return "\n".join(lines)


def prose(text: str) -> Iterator[str]:
    """A text as comment lines."""
    yield from (f"# {line}" for line in textwrap.wrap(_one_line(text), _WIDTH - 2))


def _pair(name: str, value: Any, guess: str | None) -> Iterator[str]:
    line = f"{key_text(name)} = {toml_value(value)}"
    if isinstance(value, list) and len(line) > _WIDTH:
        line = f"{key_text(name)} = [\n" + "".join(f"    {toml_value(item)},\n" for item in value) + "]"
    yield f"{line} {GUESSED} {_one_line(guess)}" if guess else line


def _one_line(text: str) -> str:
    """Without line breaks and other control characters, which a comment must not have."""
    return " ".join(re.sub(r"[\x00-\x1f\x7f]", " ", text.replace("`", "")).split())


_NO_TEACHER = (
    "No teacher: the student learns from its labels alone. For one, run 'graft teacher fit' on the sister product's "
    "log; or, with its model as ONNX, 'graft init' with --teacher into a new folder."
)


def without_teacher() -> str:
    """In place of a teacher, as `graft init` writes it without one."""
    return lines_of([*prose(_NO_TEACHER), *commented("[teacher]", TeacherConfig)])


def teacher_text(project_name: str, file: str, found: Matched | None) -> str:
    """All of it, for the teacher in that file."""
    parts = list(teacher_tables(project_name, file, found)) if found else [without_teacher()]
    kinds: list[tuple[str, type[BaseModel]]] = [("[teacher.server]", ServerConfig), ("[teacher.dump]", DumpConfig)]
    return "\n\n".join([*parts, *(lines_of(commented(header, model)) for header, model in kinds)])


def teacher_tables(project_name: str, file: str, found: Matched) -> Iterator[str]:
    """[teacher], [teacher.inputs] and each [[distillation]]."""
    stem = re.sub(r"[^A-Za-z0-9._-]", "-", Path(file).stem)
    version = f"{project_name}-{'1' if stem == 'teacher' else stem}"[:64]
    values: dict[str, Any] = {"version": version, "onnx": file}
    values["tasks"] = [task.model_dump() for task in found.tasks]
    guesses = {} if found.is_fitted else {"tasks": "the kind of each, by its name"}
    if found.vectors:
        taken = [task.name for task in found.tasks]
        values["vectors"] = [{"name": identifier(name, taken), "output": name} for name in found.vectors]
    if found.trained_until:
        values["trained_until"] = Raw(found.trained_until)
    yield lines_of(table_lines("[teacher]", TeacherConfig, values, guesses))
    meaning = "the domain map: which feature feeds each input of the teacher, and its value in a row without one"
    yield lines_of(["[teacher.inputs]", *prose(meaning), *(_input_line(match) for match in found.inputs)])
    for i, (task, twin) in enumerate(found.distilled.items()):
        values, guess = {"teacher_task": task, "student_task": twin}, {"student_task": "by name and kind"}
        yield lines_of(table_lines("[[distillation]]", DistillationConfig, values, guess, brief=i > 0))


def _input_line(match: Match) -> str:
    entry: dict[str, Any] = {"kind": "default", "default": match.default}
    if match.candidate:
        entry = {**match.transform, "feature": match.candidate.name, "default": match.default}
    return f"{key_text(match.name)} = {toml_value(entry)} {GUESSED} {match.why}".replace("\n", " ")
