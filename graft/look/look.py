"""Reads a log, or the log of a project folder, and finds its figures."""

from pathlib import Path
from typing import NamedTuple

from graft.init.any_log import read_any_log
from graft.init.log import Log
from graft.init.roles import Given
from graft.look.advice import advice
from graft.look.figures import LogFigures, Overlap, figures_of
from graft.project import FILE_NAME, Project, load_project
from stream.config import StreamConfig
from student.versions.manifest import StudentConfig


class Look(NamedTuple):
    """The figures of a log, how much of it a project knows, and advice on what in it will hurt."""

    figures: LogFigures
    overlaps: list[Overlap]
    advice: list[str]


class Read(NamedTuple):
    """A log with its figures, and the project whose log it is; None: it is a mere log."""

    log: Log
    figures: LogFigures
    project: Project | None


def read(where: str, given: Given) -> Read:
    """Read a log in any form, or that of a project folder.

    InvalidInputError names what cannot be read, with every column that must be named.
    """
    project = load_project(Path(where)) if (Path(where) / FILE_NAME).exists() else None
    found = read_any_log(str(project.event_file) if project else where, given)
    size, labels = found.table.disk_bytes, found.roles.labels
    if (told := found.documented) is None:
        return Read(found.log, figures_of(found.log, labels, size, {}), project)
    odd = (told.without_impression, told.doubled)
    return Read(found.log, figures_of(found.log, labels, size, told.delays_ms, *odd), project)


def judged(found: Read, overlaps: list[Overlap]) -> Look:
    """The look, with advice by the settings of the log's project; of a mere log by their defaults."""
    project = found.project
    stream, student = (project.stream, project.student) if project else (StreamConfig(), StudentConfig())
    windows = {task.name: task.window_seconds for task in project.tasks} if project else {}
    return Look(found.figures, overlaps, list(advice(found.figures, overlaps, stream, student, windows)))
