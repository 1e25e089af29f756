"""The text of graft.toml that tells of the teacher: [teacher], its inputs, and what is distilled into what."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graft.init.names import identifier
from graft.init.teacher_match import Match, Matched
from graft.init.toml_text import GUESSED, Raw, commented, key_text, lines_of, prose, table_lines, toml_value
from student.learn.config import DistillationConfig
from teacher_cache.config import DumpConfig, ServerConfig, TeacherConfig

if TYPE_CHECKING:
    from pydantic import BaseModel

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
