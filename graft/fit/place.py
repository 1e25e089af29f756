"""Puts a fitted teacher into a project that is there; nothing is overwritten, and graft.toml only gains a teacher."""

import re
from pathlib import Path

from graft.fit.fit import Fitted
from graft.fit.prepare import Prepared
from graft.fit.target import unlisted
from graft.init.plan import TEACHER, codes_folder
from graft.init.teacher_text import teacher_tables, without_teacher
from graft.init.toml_text import GUESSED, toml_value
from graft.project import FILE_NAME, Project
from runtime.errors import InvalidInputError
from runtime.folder import replacing

_PASSTHROUGH = re.compile(r"^# passthrough = .*$", re.MULTILINE)


def may_list(project: Project) -> bool:
    """Whether features that [features] does not list may feed the teacher.

    They may where `place` can add them to passthrough, or tells the user to.
    """
    return project.teacher is not None or bool(_PASSTHROUGH.search(_text(project)))


def check_place(project: Project, file: str | None) -> str:
    """The name of the teacher's file in the folder; InvalidInputError where a file to be written is there."""
    if file is None and project.teacher is not None:
        raise InvalidInputError(
            f"{project.folder / FILE_NAME}: has a [teacher] already, which stays as it is; --to NAME.onnx writes the "
            "new one beside it, and NAME.toml with the tables that take the place of those"
        )
    name = file or TEACHER
    path = (project.folder / name).resolve()
    if path.suffix != ".onnx" or not path.is_relative_to(project.folder.resolve()):
        raise InvalidInputError(f"--to {name}: must be a file of the project folder that ends in .onnx")
    for there in _files(project, name):
        if there.exists():
            raise InvalidInputError(f"{there}: is there already and is not overwritten; name another file with --to")
    return str(path.relative_to(project.folder.resolve()))


def place(project: Project, fitted: Fitted, file: str) -> Path:
    """Write the teacher and its tables; the file with the tables, which is graft.toml where that had no teacher."""
    check_place(project, file)  # once more: training takes time
    matched = fitted.prepared.matched(file)
    tables = "\n\n".join(teacher_tables(project.name, file, matched))
    missing = _missing(project, fitted.prepared)
    fitted.write(project.folder, file)
    if project.teacher is None:
        path, text = project.folder / FILE_NAME, _with_teacher(_text(project), tables, missing)
    else:
        path = project.folder / Path(file).with_suffix(".toml")
        more = f"# Add to passthrough in [features]: {', '.join(map(toml_value, missing))}\n\n" if missing else ""
        text = f"# In place of [teacher], [teacher.inputs] and [[distillation]] of {FILE_NAME}.\n{more}{tables}\n"
    with replacing(path) as written:
        written.write(text.encode())
    return path


def _files(project: Project, name: str) -> list[Path]:
    path = project.folder / name
    tables = [path.with_suffix(".toml")] if project.teacher is not None else []
    return [path, project.folder / codes_folder(name), *tables]


def _missing(project: Project, prepared: Prepared) -> list[str]:
    fed = [one.feature.name for one in prepared.shared]
    return unlisted(project.features, [name for name in fed if ":" in name])


def _with_teacher(text: str, tables: str, passthrough: list[str]) -> str:
    """graft.toml with the teacher where it says that there is none, else at its end."""
    absent = without_teacher()
    text = text.replace(absent, tables) if absent in text else f"{text.rstrip()}\n\n{tables}\n"
    if passthrough:
        line = f"passthrough = {toml_value(passthrough)} {GUESSED} inputs of the teacher that the student does not see"
        text = _PASSTHROUGH.sub(lambda _: line, text, count=1)
    return text


def _text(project: Project) -> str:
    return (project.folder / FILE_NAME).read_text(encoding="utf-8")
