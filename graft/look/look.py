"""Reads a log, or the log of a project folder, and finds its figures."""

from pathlib import Path
from typing import NamedTuple

from graft.init.columns import columns_of
from graft.init.documented import is_documented, read_documented
from graft.init.log import read_log
from graft.init.roles import Given, decide
from graft.init.tables import Table
from graft.look.advice import advice
from graft.look.figures import LogFigures, figures_of
from graft.look.overlap import Overlap, overlaps
from graft.project import FILE_NAME, Project, load_project
from runtime.errors import InvalidInputError
from stream.config import StreamConfig
from student.versions.config import StudentConfig

_EVENT_FILES = ("events.parquet", "events.jsonl")


class Look(NamedTuple):
    """The figures of a log, how much of it a project knows, and what of it will hurt."""

    figures: LogFigures
    overlaps: list[Overlap]
    advice: list[str]


def look(where: str, given: Given, redis_url: str) -> Look:
    """Look at a log in any form, or at the log of a project with its tables and teacher. Needs no server.

    InvalidInputError names what cannot be read, with every column that must be named.
    """
    project = load_project(Path(where)) if (Path(where) / FILE_NAME).exists() else None
    table = Table(_log_of(project) if project else where)
    columns = columns_of(table.batches())
    if not any(column.rows for column in columns.values()):
        raise InvalidInputError(f"{table.where}: no rows")
    known: list[Overlap] = []
    windows = {task.name: task.window_seconds for task in project.tasks} if project else {}
    if is_documented(columns):
        read = read_documented(table, columns)
        log = read.log
        figures = figures_of(log, read.labels, table.disk_bytes, read.delays_ms, read.without_impression, read.doubled)
    else:
        roles = decide(columns, given)
        if roles.questions:
            raise InvalidInputError("\n".join(question.unanswered(columns) for question in roles.questions))
        log = read_log(table, roles)
        figures = figures_of(log, roles.labels, table.disk_bytes, {})
    if project:
        known = overlaps(project, redis_url, log)
    stream, student = (project.stream, project.student) if project else (StreamConfig(), StudentConfig())
    return Look(figures, known, list(advice(figures, known, stream, student, windows)))


def _log_of(project: Project) -> str:
    for name in _EVENT_FILES:
        if (project.folder / name).exists():
            return str(project.folder / name)
    raise InvalidInputError(f"{project.folder}: no {' or '.join(_EVENT_FILES)}; name the log itself")
