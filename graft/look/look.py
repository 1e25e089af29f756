"""Reads a log, or the log of a project folder, and finds its figures."""

from pathlib import Path
from typing import NamedTuple

from graft.init.columns import columns_of
from graft.init.documented import is_documented, read_documented
from graft.init.log import Log, read_log
from graft.init.roles import Given, decide
from graft.init.tables import Table
from graft.look.advice import advice
from graft.look.figures import LogFigures, Overlap, figures_of
from graft.project import FILE_NAME, Project, load_project
from runtime.errors import InvalidInputError
from stream.config import StreamConfig
from student.versions.config import StudentConfig


class Look(NamedTuple):
    """The figures of a log, how much of it a project knows, and what of it will hurt."""

    figures: LogFigures
    overlaps: list[Overlap]
    advice: list[str]


class Read(NamedTuple):
    """A log with its figures, and the project whose log it is."""

    log: Log
    figures: LogFigures
    project: Project | None


def read(where: str, given: Given) -> Read:
    """Read a log in any form, or that of a project folder.

    InvalidInputError names what cannot be read, with every column that must be named.
    """
    project = load_project(Path(where)) if (Path(where) / FILE_NAME).exists() else None
    table = Table(str(project.event_file) if project else where)
    columns = columns_of(table.batches())
    if not any(column.rows for column in columns.values()):
        raise InvalidInputError(f"{table.where}: no rows")
    if is_documented(columns):
        found = read_documented(table, columns)
        odd = (found.without_impression, found.doubled)
        return Read(found.log, figures_of(found.log, found.labels, table.disk_bytes, found.delays_ms, *odd), project)
    roles = decide(columns, given)
    if roles.questions:
        raise InvalidInputError("\n".join(question.unanswered(columns) for question in roles.questions))
    log = read_log(table, roles)
    return Read(log, figures_of(log, roles.labels, table.disk_bytes, {}), project)


def judged(found: Read, overlaps: list[Overlap]) -> Look:
    """With what of it will hurt: by the project's keys, or by their defaults."""
    project = found.project
    stream, student = (project.stream, project.student) if project else (StreamConfig(), StudentConfig())
    windows = {task.name: task.window_seconds for task in project.tasks} if project else {}
    return Look(found.figures, overlaps, list(advice(found.figures, overlaps, stream, student, windows)))
